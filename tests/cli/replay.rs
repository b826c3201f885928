//! What a request log has, asked again.
