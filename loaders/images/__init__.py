"""Images: from files of any format to stored frames."""
