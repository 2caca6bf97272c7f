"""The rules of the doctor: each looks at what was read and reports findings."""
