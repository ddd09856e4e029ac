//! rustls, through its unbuffered interface.
