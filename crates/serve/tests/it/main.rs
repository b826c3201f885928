//! Steps that reach beyond the process, against real servers and real files.

mod fetch;
mod post;
mod remote;
mod server;
mod sink;
mod tls;
