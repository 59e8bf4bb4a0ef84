"""One module per outside thing that assets and sensors talk to: the database, later mail and alert channels."""
