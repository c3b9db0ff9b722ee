//! Addresses as people write them: a host is an IP address, with brackets or without, or a name.

use std::net::IpAddr;

/// A host as it is used: without brackets. The error says what is wrong with it.
pub fn host(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = bare.unwrap_or(text);
    let is_ipv6 = |host: &str| {
        // The interface behind a link-local address is the system's to judge.
        let address = host.split_once('%').map_or(host, |(address, _)| address);
        address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6())
    };
    let is_wrong = |character: char| character.is_whitespace() || "/@[]\"'\\".contains(character);
    if host.is_empty() || host.contains(is_wrong) {
        return Err(format!("host {text:?}: wants an IP address or a name"));
    }
    if (bare.is_some() || host.contains(':')) && !is_ipv6(host) {
        return Err(format!("host {text:?}: wants an IP address or a name; a port has a place of its own"));
    }
    Ok(host.to_string())
}

/// Whether a node listens on all its addresses there: 0.0.0.0 or ::, which lead others nowhere.
pub fn is_everywhere(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
}

/// As `host`, of a place where others can reach a node: not 0.0.0.0, which is no place but all of one's own.
pub fn reachable_host(text: &str) -> Result<String, String> {
    let host = host(text)?;
    if is_everywhere(&host) {
        return Err(format!(
            "host {text:?}: is where a node listens on all its addresses; name one that leads to it"
        ));
    }
    Ok(host)
}

/// `HOST:PORT`; an IPv6 address has brackets there.
pub fn reachable_place(text: &str) -> Result<(String, u16), String> {
    let wanted = || format!("{text:?}: wants HOST:PORT, or [IPV6]:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(wanted)?;
    if host.contains(':') && !host.starts_with('[') {
        return Err(wanted());
    }
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wanted)?;
    Ok((reachable_host(host)?, port))
}

/// Whether it is what Kubernetes, and Docker before it, puts into variables named like a Service:
/// `tcp://10.0.0.1:9000`. It says where the Service is, and is no port, host or anything else of a node's.
pub fn is_service_link(text: &str) -> bool {
    let schemes = ["tcp://", "udp://", "sctp://"];
    let place = schemes.iter().find_map(|scheme| text.trim().strip_prefix(scheme));
    let parts = place.and_then(|place| place.rsplit_once(':'));
    parts.is_some_and(|(address, port)| !address.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_services_are_told_from_ports_and_hosts() {
        for link in ["tcp://10.0.0.1:9000", "udp://10.0.0.1:53", "tcp://[fd00::1]:9000", " sctp://a:1\n"] {
            assert!(is_service_link(link), "{link}");
        }
        for other in
            ["9000", "10.0.0.1:9000", "http://10.0.0.1:9000", "tcp://10.0.0.1", "tcp://:9", "tcp://a:x", ""]
        {
            assert!(!is_service_link(other), "{other}");
        }
    }

    #[test]
    fn a_host_is_what_a_socket_takes_or_is_refused() {
        for (given, host_of) in [
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "::1"),
            ("::1", "::1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
            ("db-1.example", "db-1.example"),
        ] {
            assert_eq!(host(given).as_deref(), Ok(host_of));
        }
        for wrong in [
            "",
            "[",
            "[]",
            "[::1",
            "::1]",
            "[db]",
            "a:9000",
            "[::1]:9000",
            "a b",
            "http://a",
            "::g",
            "[1.2.3.4]",
        ] {
            assert!(host(wrong).is_err(), "{wrong:?}");
        }
        for nowhere in ["0.0.0.0", "::", "[::]"] {
            assert!(host(nowhere).is_ok() && reachable_host(nowhere).is_err(), "{nowhere:?}");
        }
    }

    #[test]
    fn a_place_has_a_host_and_a_port() {
        assert_eq!(reachable_place("db:9000"), Ok(("db".into(), 9000)));
        assert_eq!(reachable_place("[::1]:9000"), Ok(("::1".into(), 9000)));
        for wrong in ["db", "db:", ":9000", "db:0", "db:70000", "::1:9000", "0.0.0.0:9000", "[::]:1", "db:x"]
        {
            assert!(reachable_place(wrong).is_err(), "{wrong:?}");
        }
    }
}
