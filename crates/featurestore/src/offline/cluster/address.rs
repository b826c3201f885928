//! Where the scheduler of a cluster answers.

use std::{fmt, net::SocketAddr, str::FromStr};

use super::ClusterError;

/// The host and port of a scheduler, read from `HOST:PORT` or `http://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerAddress {
    /// A name or an address; one of IPv6 in brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl SchedulerAddress {
    pub(super) fn url(&self) -> String {
        format!("http://{self}")
    }
}

impl FromStr for SchedulerAddress {
    type Err = ClusterError;

    fn from_str(text: &str) -> Result<Self, ClusterError> {
        let wrong = |problem: &'static str| ClusterError::Address { text: text.to_owned(), problem };
        let rest = match text.split_once("://") {
            None => text,
            Some(("http", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some(_) => return Err(wrong("connections to a cluster are plain, so it begins with http://")),
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| wrong("it has no port"))?;
        let port = port.parse().ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| wrong("its port is no number from 1 to 65535"))?;
        let within = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = |host: &str| {
            !host.is_empty() && host.chars().all(|char| char.is_ascii_alphanumeric() || "-._".contains(char))
        };
        let valid = within.map_or_else(|| is_host(host), |host| host.parse::<std::net::Ipv6Addr>().is_ok());
        if !valid {
            return Err(wrong("its host is neither a name nor an address, of IPv6 in brackets"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl From<SocketAddr> for SchedulerAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: host(address), port: address.port() }
    }
}

impl fmt::Display for SchedulerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The host of an address as it stands in a URL.
pub(super) fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, read) in [
            ("10.0.0.1:50050", "10.0.0.1:50050"),
            ("http://scheduler-0.ml_jobs:7/", "scheduler-0.ml_jobs:7"),
            ("[::1]:50050", "[::1]:50050"),
        ] {
            let address: SchedulerAddress = text.parse().unwrap();
            assert_eq!((address.to_string(), address.url()), (read.to_owned(), format!("http://{read}")));
        }
        for (text, problem) in [
            ("", "no port"),
            ("scheduler", "no port"),
            ("scheduler:0", "no number from 1 to 65535"),
            ("scheduler:65536", "no number from 1 to 65535"),
            (":50050", "neither a name nor an address"),
            ("::1:50050", "neither a name nor an address"),
            ("http://me:secret@scheduler:50050", "neither a name nor an address"),
            ("http://scheduler:50050/jobs", "no number from 1 to 65535"),
            ("https://scheduler:50050", "begins with http://"),
        ] {
            let error = text.parse::<SchedulerAddress>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
