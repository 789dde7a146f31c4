//! Network interfaces.

use std::path::Path;

use procfs_core::FromRead;
use procfs_core::net::{DeviceStatus, InterfaceDeviceStatus};
use serde::Serialize;

use super::{monotonic_now, per_second, strange, text};
use crate::error::Result;
use crate::event::Nanos;

/// What the network interfaces have carried since boot, or since each was made.
///
/// ```
/// use schedtrace_core::system::stats::SystemNetwork;
/// for interface in SystemNetwork::read("/".as_ref())?.interfaces {
///     println!("{}: {} bytes received", interface.name, interface.received_bytes);
/// }
/// # Ok::<(), schedtrace_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SystemNetwork {
    /// When it was read, by `CLOCK_MONOTONIC`.
    pub read_at_ns: Nanos,
    /// Those of this network namespace, most bytes first.
    pub interfaces: Vec<Interface>,
}

/// What one interface has carried.
///
/// ```
/// use schedtrace_core::system::stats::Interface;
/// assert_eq!(Interface { name: "eth0".into(), ..Interface::default() }.sent_bytes, 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name: text that somebody chose.
    pub name: String,
    /// Received.
    pub received_bytes: u64,
    /// Received.
    pub received_packets: u64,
    /// Received with an error.
    pub receive_errors: u64,
    /// Received, but thrown away.
    pub receive_dropped: u64,
    /// Sent.
    pub sent_bytes: u64,
    /// Sent.
    pub sent_packets: u64,
    /// Not sent because of an error.
    pub send_errors: u64,
    /// Not sent for want of room.
    pub send_dropped: u64,
}

/// What the interfaces carried between two readings.
///
/// ```
/// use schedtrace_core::system::stats::NetworkRates;
/// assert!(NetworkRates::default().interfaces.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NetworkRates {
    /// How long it was from the first to the second.
    pub window_ns: Nanos,
    /// Those that were there at both, most bytes first.
    pub interfaces: Vec<InterfaceActivity>,
}

/// What one interface carried between two readings.
///
/// ```
/// use schedtrace_core::system::stats::InterfaceActivity;
/// assert_eq!(InterfaceActivity::default().dropped_per_second, 0.0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct InterfaceActivity {
    /// Its name: text that somebody chose.
    pub name: String,
    /// Received.
    pub received_bytes_per_second: f64,
    /// Received.
    pub received_packets_per_second: f64,
    /// Sent.
    pub sent_bytes_per_second: f64,
    /// Sent.
    pub sent_packets_per_second: f64,
    /// Errors, both ways.
    pub errors_per_second: f64,
    /// Thrown away, both ways.
    pub dropped_per_second: f64,
}

impl SystemNetwork {
    /// Reads `proc/net/dev` below `root`.
    ///
    /// ```
    /// use schedtrace_core::system::stats::SystemNetwork;
    /// assert!(SystemNetwork::read("/no/such/folder".as_ref()).is_err());
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if it cannot be read, or is not as the kernel writes it.
    pub fn read(root: &Path) -> Result<Self> {
        const DEV: &str = "proc/net/dev";
        let dev = text(root, DEV)?;
        let read_at_ns = monotonic_now();
        let InterfaceDeviceStatus(interfaces) = InterfaceDeviceStatus::from_read(dev.as_bytes())
            .map_err(|_| strange(root, DEV, "it is not as the kernel writes it"))?;
        let mut interfaces: Vec<Interface> = interfaces.into_values().map(Interface::from).collect();
        let carried = |one: &Interface| one.received_bytes.saturating_add(one.sent_bytes);
        interfaces.sort_unstable_by(|a, b| carried(b).cmp(&carried(a)).then_with(|| a.name.cmp(&b.name)));
        Ok(Self { read_at_ns, interfaces })
    }

    /// What happened since an earlier reading of the same machine.
    ///
    /// ```
    /// use schedtrace_core::system::stats::SystemNetwork;
    /// let before = SystemNetwork::read("/".as_ref())?;
    /// let rates = SystemNetwork::read("/".as_ref())?.since(&before);
    /// assert!(rates.interfaces.iter().all(|one| one.sent_bytes_per_second >= 0.0));
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    #[must_use]
    pub fn since(&self, before: &Self) -> NetworkRates {
        let window_ns = self.read_at_ns - before.read_at_ns;
        let both = self.interfaces.iter().filter_map(|now| {
            let then = before.interfaces.iter().find(|then| then.name == now.name)?;
            let rate = |count: fn(&Interface) -> u64| per_second(count(then), count(now), window_ns);
            Some(InterfaceActivity {
                name: now.name.clone(),
                received_bytes_per_second: rate(|one| one.received_bytes),
                received_packets_per_second: rate(|one| one.received_packets),
                sent_bytes_per_second: rate(|one| one.sent_bytes),
                sent_packets_per_second: rate(|one| one.sent_packets),
                errors_per_second: rate(|one| one.receive_errors.saturating_add(one.send_errors)),
                dropped_per_second: rate(|one| one.receive_dropped.saturating_add(one.send_dropped)),
            })
        });
        let mut interfaces: Vec<_> = both.collect();
        let carried = |one: &InterfaceActivity| one.received_bytes_per_second + one.sent_bytes_per_second;
        interfaces.sort_by(|a, b| carried(b).total_cmp(&carried(a)));
        NetworkRates { window_ns, interfaces }
    }
}

impl From<DeviceStatus> for Interface {
    fn from(device: DeviceStatus) -> Self {
        Self {
            name: device.name,
            received_bytes: device.recv_bytes,
            received_packets: device.recv_packets,
            receive_errors: device.recv_errs,
            receive_dropped: device.recv_drop,
            sent_bytes: device.sent_bytes,
            sent_packets: device.sent_packets,
            send_errors: device.sent_errs,
            send_dropped: device.sent_drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::write;
    use super::*;

    fn read(lines: &str, at: u64) -> SystemNetwork {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/net/dev", &format!("Inter-| Receive\n face |bytes\n{lines}"));
        SystemNetwork { read_at_ns: Nanos(at), ..SystemNetwork::read(root.path()).unwrap() }
    }

    #[test]
    fn interfaces_come_busiest_first() {
        let before = read(
            "    lo: 10 1 0 0 0 0 0 0 10 1 0 0 0 0 0 0\n  eth0: 500 5 1 2 0 0 0 0 300 3 0 0 0 0 0 0\n gone: 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
            0,
        );
        let names = |network: &SystemNetwork| network.interfaces.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&before), ["eth0", "lo", "gone"]);
        assert_eq!((before.interfaces[0].receive_errors, before.interfaces[0].receive_dropped), (1, 2));
        let after = read(
            "  lo: 9010 2 0 0 0 0 0 0 9010 2 0 0 0 0 0 0\neth0: 700 6 1 4 0 0 0 0 300 3 0 0 0 0 0 0\nnew0: 9 9 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
            2_000_000_000,
        );
        let rates = after.since(&before);
        assert_eq!(rates.interfaces.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["lo", "eth0"]);
        assert_eq!(rates.interfaces[0].received_bytes_per_second, 4_500.0);
        assert_eq!((rates.interfaces[1].dropped_per_second, rates.interfaces[1].sent_bytes_per_second), (1.0, 0.0));
    }

    #[test]
    fn a_short_line_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/net/dev", "a\nb\neth0: 1 2 3\n");
        assert!(SystemNetwork::read(root.path()).unwrap_err().to_string().contains("proc/net/dev"));
    }

    #[test]
    fn this_machine_is_read() {
        assert!(SystemNetwork::read("/".as_ref()).unwrap().interfaces.iter().any(|one| one.name == "lo"));
    }
}
