"""Looking at finished mattes: which frames to doubt, where a key would help most, and pages to see it on."""
