//! Kinds of values that name something on the network: addresses to listen on,
//! the public address, networks of proxies.
//!
//! Refuses to know: whether anything answers there.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::ValueHint;
use ipnet::{IpNet, Ipv4Net};
use schemars::{Schema, SchemaGenerator};

use super::kind::{Form, Kind, mistyped};

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) SocketAddr);

impl Address {
    pub(crate) const fn loopback(port: u16) -> Address {
        Address(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }
}

impl Kind for Address {
    const EXAMPLE: &'static str = "\"127.0.0.1:5000\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("{}:{port}", Ipv4Addr::LOCALHOST),
            None => text.to_owned(),
        };
        numeric.parse().map(Address).map_err(|_| {
            format!("{text:?} is not an address and port such as 127.0.0.1:5000 or [::1]:5000")
        })
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// Where to listen, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressOrOff(pub(crate) Option<SocketAddr>);

impl Kind for AddressOrOff {
    const EXAMPLE: &'static str = "\"127.0.0.1:5001\" or \"off\"";

    fn from_text(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(AddressOrOff(None));
        }
        Address::from_text(text)
            .map(|address| AddressOrOff(Some(address.0)))
            .map_err(|error| format!("{error}, nor off"))
    }

    fn show(&self) -> String {
        self.0
            .map_or_else(|| "off".to_owned(), |address| address.to_string())
    }
}

/// Scheme and authority of a server, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicUrl(pub(crate) String);

impl Kind for PublicUrl {
    const HINT: ValueHint = ValueHint::Url;
    const EXAMPLE: &'static str = "\"https://registry.example.org\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let malformed = || {
            format!(
                "{:?} is not an address such as https://registry.example.org or http://10.0.0.5:5000, without a path",
                without_credentials(text)
            )
        };
        let uri: http::Uri = text.parse().map_err(|_| malformed())?;
        let scheme = uri.scheme_str().ok_or_else(malformed)?;
        let authority = uri.authority().ok_or_else(malformed)?;
        let is_plain = matches!(scheme, "http" | "https")
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            // The parser drops what is behind it.
            && !text.contains('#')
            && is_host_and_port(authority.as_str());
        if is_plain {
            Ok(PublicUrl(format!("{scheme}://{authority}")))
        } else {
            Err(malformed())
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// An address that can be told to everybody: a password may stand before an @.
fn without_credentials(text: &str) -> Cow<'_, str> {
    match text.rsplit_once('@') {
        Some((_, host)) => Cow::Owned(format!("…@{host}")),
        None => Cow::Borrowed(text),
    }
}

/// A name or an address, and perhaps a port.
fn is_host_and_port(authority: &str) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    // Numbers are parsed with a sign, too.
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    };
    let is_host = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => host
            .strip_suffix('.')
            .unwrap_or(host)
            .split('.')
            .all(is_label),
    };
    is_host && port.is_none_or(is_port)
}

/// A part of a name, or of an address.
fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Networks, or single addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Networks(pub(crate) Vec<IpNet>);

fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map(canonical)
        .map_err(|_| format!("{text:?} is not a network such as 10.0.0.0/8 or an address"))
}

/// Bits of an IPv6 address before an IPv4 address in it.
const MAPPED_PREFIX: u8 = 96;

/// IPv4 written as IPv6 becomes IPv4, as the addresses do that are looked for.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else {
        return network;
    };
    let within = mapped.prefix_len().checked_sub(MAPPED_PREFIX);
    match (mapped.addr().to_ipv4_mapped(), within) {
        (Some(address), Some(len)) => Ipv4Net::new(address, len).map_or(network, IpNet::V4),
        _ => network,
    }
}

impl Kind for Networks {
    const FORM: Form = Form::Many;
    const EXAMPLE: &'static str = "[\"10.0.0.0/8\"]";

    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(network)
            .collect::<Result<_, _>>()
            .map(Networks)
    }

    fn from_os(text: &OsStr) -> Result<Self, String> {
        match text.to_str() {
            // No network is a list too.
            Some("") => Ok(Networks::default()),
            Some(text) => Self::from_text(text),
            None => Err(format!("{text:?} is not UTF-8")),
        }
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let toml::Value::Array(values) = value else {
            return Err(mistyped::<Self>(value));
        };
        values
            .iter()
            .map(|value| match value {
                toml::Value::String(text) => network(text),
                other => Err(format!("holds an entry that {}", mistyped::<Self>(other))),
            })
            .collect::<Result<_, _>>()
            .map(Networks)
    }

    fn show(&self) -> String {
        if self.0.is_empty() {
            return "none".to_owned();
        }
        let networks: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        networks.join(",")
    }

    fn json(&self) -> serde_json::Value {
        self.0.iter().map(ToString::to_string).collect()
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Vec<String>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_public_url_is_not_told() {
        for text in [
            "https://admin:hunter2@registry",
            "admin:hunter2@[::1]:5000/",
        ] {
            let error = PublicUrl::from_text(text).unwrap_err();
            assert!(!error.contains("hunter2") && error.contains('…'), "{error}");
        }
    }

    #[test]
    fn public_urls_have_a_host_and_a_real_port() {
        for good in [
            "https://registry.example.org",
            "http://10.0.0.5:5000",
            "https://[2001:db8::1]:5000",
            "https://[::1]",
            "https://my_host:65535",
        ] {
            assert_eq!(PublicUrl::from_text(good).unwrap().0, good);
        }
        for bad in [
            "http://:5000",
            "https://a:99999",
            "https://a:0",
            "https://a:+1",
            "https://a:",
            "https://*",
            "https://a#x",
            "https://a/#",
            "https://a..b",
            "https://[::1",
            "https://[x]",
            "https://[::1]:",
            "https://u@a",
            "https://a/v2",
            "https://a?x",
            "a:5000",
            "",
        ] {
            assert!(PublicUrl::from_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_of_ipv4_in_ipv6_are_those_of_ipv4() {
        for (text, expected) in [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), expected, "{text}");
        }
    }
}
