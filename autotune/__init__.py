"""planish.autotune: schedule spaces and the default pick; searching and the log come later."""
