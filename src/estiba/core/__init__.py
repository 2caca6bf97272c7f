"""Words that every chapter needs: errors, options, processors, programs."""
