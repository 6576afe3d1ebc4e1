"""The checks of devices, one file for each subject. Importing a file registers its checks."""
