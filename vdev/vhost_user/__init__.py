"""vhost-user: messages that let another process drive a device, or be one. Import the modules one by one."""
