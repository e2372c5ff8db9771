//! Who a request is from, for the log and for nothing else.
//!
//! What a client says of itself counts for nothing. What a trusted proxy says
//! of its client does: each adds whom it saw to the end of `X-Forwarded-For`,
//! so that the last entry that is not a trusted proxy is the one to name.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whom a request is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// The other end of the connection.
    Peer(SocketAddr),
    /// Whom a trusted proxy names.
    Named(IpAddr),
}

impl fmt::Display for From {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            From::Peer(address) => address.fmt(out),
            From::Named(address) => address.fmt(out),
        }
    }
}

/// Whom a request on a connection of this peer is from.
pub(super) fn from(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> From {
    let is_trusted = |address: IpAddr| {
        let address = address.to_canonical();
        trusted.iter().any(|network| network.contains(&address))
    };
    let mut nearest = From::Peer(peer);
    if !is_trusted(peer.ip()) {
        return nearest;
    }
    let values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    let entries = values
        .iter()
        .rev()
        .flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    for entry in entries {
        // What cannot be read hides whatever is before it.
        let Some(address) = address(entry) else { break };
        nearest = From::Named(address.to_canonical());
        if !is_trusted(address) {
            break;
        }
    }
    nearest
}

/// An address, which some proxies write with a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn from_with(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(value).unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        from(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a35_what_clients_say_of_themselves_counts_for_nothing() {
        let told = ["203.0.113.9", "10.0.0.1"];
        assert_eq!(from_with("192.0.2.1:7", &told, &[]), "192.0.2.1:7");
        assert_eq!(
            from_with("192.0.2.1:7", &told, &["10.0.0.0/8"]),
            "192.0.2.1:7"
        );
        // Before the proxy's own entry stands whatever the client sent.
        assert_eq!(
            from_with(
                "10.0.0.1:7",
                &["10.9.9.9, 198.51.100.4, 203.0.113.9"],
                &["10.0.0.0/8"]
            ),
            "203.0.113.9"
        );
    }

    #[test]
    fn trusted_proxies_are_believed_as_far_as_they_reach() {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"];
        for (peer, forwarded, expected) in [
            ("10.0.0.1:7", vec!["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1:7", vec!["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1:7", vec!["[2001:db9::1]:4711"], "2001:db9::1"),
            ("10.0.0.1:7", vec!["[2001:db9::1]"], "2001:db9::1"),
            ("10.0.0.1:7", vec!["203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1:7", vec!["203.0.113.9", "10.0.0.2"], "203.0.113.9"),
            ("[2001:db8::1]:7", vec!["203.0.113.9"], "203.0.113.9"),
            ("[::ffff:10.0.0.1]:7", vec!["203.0.113.9"], "203.0.113.9"),
            // All of them proxies: the first of them.
            ("10.0.0.1:7", vec!["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Nothing that can be read: the proxy itself.
            ("10.0.0.1:7", vec![], "10.0.0.1:7"),
            ("10.0.0.1:7", vec![""], "10.0.0.1:7"),
            ("10.0.0.1:7", vec!["unknown"], "10.0.0.1:7"),
            (
                "10.0.0.1:7",
                vec!["203.0.113.9, _hidden, 10.0.0.2"],
                "10.0.0.2",
            ),
        ] {
            assert_eq!(
                from_with(peer, &forwarded, &trusted),
                expected,
                "{forwarded:?}"
            );
        }
    }
}
