"""The kinds of locators, one a file; see `distime.annotate.locator`."""
