"""The plan of services, and the sections of the project file that it is made of."""
