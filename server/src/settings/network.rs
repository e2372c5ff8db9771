//! Kinds of values that name something on the network: addresses to listen on,
//! the public address, networks of proxies.
//!
//! Refuses to know: whether anything answers there.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::ValueHint;
use ipnet::IpNet;
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
                "{text:?} is not an address such as https://registry.example.org or http://10.0.0.5:5000, without a path"
            )
        };
        let uri: http::Uri = text.parse().map_err(|_| malformed())?;
        let scheme = uri.scheme_str().ok_or_else(malformed)?;
        let authority = uri.authority().ok_or_else(malformed)?;
        let is_plain = matches!(scheme, "http" | "https")
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && !authority.as_str().contains('@');
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

/// Networks, or single addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Networks(pub(crate) Vec<IpNet>);

fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("{text:?} is not a network such as 10.0.0.0/8 or an address"))
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
