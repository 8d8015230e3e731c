"""Whether a registration is to be trusted: PASS, WARN or FAIL, with the reasons in plain words."""
