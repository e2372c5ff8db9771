//! How many connections one peer has, so that none can take all there are.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Network bits of the IPv6 addresses that count as one peer.
const IPV6_PREFIX: u32 = 64;

/// The peers that have connections.
#[derive(Clone)]
pub(super) struct Peers {
    counts: Arc<Mutex<HashMap<IpAddr, Count>>>,
    max: u32,
}

#[derive(Default)]
struct Count {
    connections: u32,
    was_told: bool,
}

impl Peers {
    /// At most `max` connections for each.
    pub(super) fn new(max: u32) -> Peers {
        let counts = Arc::default();
        Peers { counts, max }
    }

    /// A place for one more connection of this peer, if it may have one.
    pub(super) fn admit(&self, address: IpAddr) -> Option<PeerPlace> {
        let peer = one_peer(address);
        let mut counts = self.counts();
        let count = counts.entry(peer).or_default();
        if count.connections >= self.max {
            if !std::mem::replace(&mut count.was_told, true) {
                tracing::warn!(%peer, limit = self.max, "a peer has all the connections one may have; more are closed");
            }
            return None;
        }
        count.connections = count.connections.saturating_add(1);
        drop(counts);
        let peers = self.clone();
        Some(PeerPlace { peers, peer })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that counts until this is dropped.
pub(super) struct PeerPlace {
    peers: Peers,
    peer: IpAddr,
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        let mut counts = self.peers.counts();
        if let Some(count) = counts.get_mut(&self.peer) {
            count.connections = count.connections.saturating_sub(1);
            if count.connections == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

/// The address that stands for all that one host may use.
fn one_peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let mask = u128::MAX << (u128::BITS - IPV6_PREFIX);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_peer_has_so_many_connections_and_no_more() {
        let peers = Peers::new(2);
        let one = address("192.0.2.1");
        let first = peers.admit(one).unwrap();
        let _second = peers.admit(address("::ffff:192.0.2.1")).unwrap();
        assert!(peers.admit(one).is_none());
        let _other = peers.admit(address("192.0.2.2")).unwrap();
        drop(first);
        let _third = peers.admit(one).unwrap();
        assert!(peers.admit(one).is_none());
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        let peers = Peers::new(1);
        let _place = peers.admit(address("2001:db8::1")).unwrap();
        assert!(peers.admit(address("2001:db8::ffff:2")).is_none());
        assert!(peers.admit(address("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn peers_without_connections_are_forgotten() {
        let peers = Peers::new(1);
        drop(peers.admit(address("192.0.2.1")));
        assert!(peers.counts().is_empty());
    }
}
