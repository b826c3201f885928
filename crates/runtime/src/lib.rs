//! The engine: runs plans on the caller's async runtime and a compute pool.
