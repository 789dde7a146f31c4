//! Block devices: what was asked of them, as recorded, and what the machine says of them now.

use std::collections::HashMap;

use schedtrace_core::analysis::{GroupBy, ReportName};
use schedtrace_core::system::stats::Disk;

use super::relations::{nothing_of, row};
use super::system::{named, pressure, sheet, told};
use super::{Cx, View, sampled};
use crate::engine::Wants;
use crate::keys::Action;
use crate::machine::Part;
use crate::sheet::{Column, Sheet, Target, Value};

pub(super) struct Disks;

const OPERATIONS: &[Column] = &[
    Column { name: "DEVICE", about: "Which disk.", width: 14, rank: 0 },
    Column { name: "OPERATION", about: "Read, write, and how.", width: 14, rank: 0 },
    Column { name: "REQUESTS", about: "How many were done.", width: 9, rank: 1 },
    Column { name: "BYTES", about: "How much they moved.", width: 9, rank: 1 },
    Column { name: "RATE", about: "Requests a second.", width: 9, rank: 2 },
    Column { name: "P50", about: "From issue to completion: the median.", width: 8, rank: 2 },
    Column { name: "P99", about: "99 of 100 were not longer.", width: 8, rank: 1 },
    Column { name: "LONGEST", about: "The longest.", width: 8, rank: 1 },
    Column { name: "FAILED", about: "How many failed.", width: 7, rank: 3 },
];

const IN_FLIGHT: &[Column] = &[
    Column { name: "DEVICE", about: "Which disk.", width: 14, rank: 0 },
    Column { name: "AT ONCE", about: "Requests that it had to do at once, on average.", width: 8, rank: 0 },
    Column { name: "MOST", about: "How many at most, where it is recorded when they were issued.", width: 7, rank: 1 },
];

const ASKED: &[Column] = &[
    Column { name: "WHO", about: "Who asked.", width: 30, rank: 0 },
    Column { name: "REQUESTS", about: "How many.", width: 9, rank: 1 },
    Column { name: "BYTES", about: "How much.", width: 9, rank: 1 },
    Column { name: "LATENCY", about: "Of all of them together.", width: 9, rank: 1 },
];

const DEVICES: &[Column] = &[
    Column { name: "DISK", about: "Its name.", width: 14, rank: 0 },
    Column { name: "BUSY", about: "Share of the time in which it had requests.", width: 7, rank: 0 },
    Column { name: "READ", about: "Bytes read a second.", width: 10, rank: 0 },
    Column { name: "WRITTEN", about: "Bytes written a second.", width: 10, rank: 0 },
    Column { name: "READS", about: "Requests to read a second.", width: 9, rank: 2 },
    Column { name: "WRITES", about: "Requests to write a second.", width: 9, rank: 2 },
    Column { name: "READ IN", about: "How long a request to read takes, on average.", width: 8, rank: 1 },
    Column { name: "WRITTEN IN", about: "How long a request to write takes, on average.", width: 10, rank: 1 },
    Column { name: "QUEUE", about: "Requests that it had at once, on average.", width: 7, rank: 1 },
    Column { name: "NOW", about: "Requests that it has now.", width: 5, rank: 3 },
    Column { name: "ALL READ", about: "Bytes since boot.", width: 9, rank: 3 },
    Column { name: "ALL WRITTEN", about: "Bytes since boot.", width: 11, rank: 3 },
];

/// What the machine counts of its disks.
fn devices(cx: &Cx<'_>) -> Sheet {
    let devices = sheet("disks now", DEVICES, told(cx, |machine| &machine.disks), |disks| {
        let rates = disks.rates.iter().flat_map(|rates| &rates.disks);
        let rates: HashMap<_, _> = rates.map(|rates| (rates.name.as_str(), rates)).collect();
        let row = |disk: &Disk| {
            let rates = rates.get(disk.name.as_str());
            let of = |figure: Option<f64>, value: fn(f64) -> Value| figure.map_or(Value::None, value);
            let took = |mean_ms: Option<f64>| mean_ms.map_or(Value::None, |ms| Value::Time((ms * 1e6) as u64));
            named(vec![
                Value::text(disk.name.clone()),
                of(rates.map(|rates| rates.busy_ratio), Value::Ratio),
                of(rates.map(|rates| rates.read_bytes_per_second), Value::ByteRate),
                of(rates.map(|rates| rates.written_bytes_per_second), Value::ByteRate),
                of(rates.map(|rates| rates.reads_per_second), Value::Rate),
                of(rates.map(|rates| rates.writes_per_second), Value::Rate),
                took(rates.and_then(|rates| rates.read_mean_ms)),
                took(rates.and_then(|rates| rates.write_mean_ms)),
                of(rates.map(|rates| rates.queue_mean), Value::Number),
                Value::Count(disk.in_flight),
                Value::Bytes(disk.read_bytes),
                Value::Bytes(disk.written_bytes),
            ])
        };
        disks.now.disks.iter().map(row).collect()
    });
    devices.or_if_empty("no disk of this machine has been used")
}

impl View for Disks {
    fn wants(&self, by: GroupBy, _: u16) -> Wants {
        Wants::default().report(by, ReportName::BlockIo).report(by, ReportName::SystemUse)
    }

    fn machine(&self) -> &'static [Part] {
        &[Part::Disks]
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        if cx.without.is_some() {
            return vec![devices(cx), pressure(told(cx, |machine| &machine.disks).map(|disks| disks.now.pressure))];
        }
        let Some(io) = cx.picture.report(cx.by).and_then(|set| set.block_io.as_ref()) else { return Vec::new() };
        let operations = io.operations.iter().map(|done| {
            row(
                Target::Named(format!("{} {}", done.device, done.operation)),
                vec![
                    Value::text(done.device.clone()),
                    Value::text(done.operation.clone()),
                    Value::Count(done.totals.requests),
                    Value::Bytes(done.totals.bytes),
                    Value::Rate(done.totals.requests_per_second),
                    Value::of(&done.latency.summary, |s| s.p50_ns),
                    Value::of(&done.latency.summary, |s| s.p99_ns),
                    Value::of(&done.latency.summary, |s| s.max_ns),
                    Value::Count(done.totals.failed),
                ],
            )
        });
        let asked = io.groups.iter().map(|of| {
            let cells = vec![
                Value::text(of.group.to_string()),
                Value::Count(of.requests),
                Value::Bytes(of.bytes),
                Value::Time(of.latency_ns),
            ];
            row(Target::of(&of.group), cells)
        });
        let in_flight = io.devices.iter().map(|of| {
            let name = if of.device.is_empty() { "?".to_owned() } else { of.device.clone() };
            named(vec![
                Value::text(name),
                Value::Number(of.in_flight_mean),
                of.in_flight_max.map_or(Value::None, Value::Count),
            ])
        });
        let mut sheets = vec![
            Sheet::new("requests", OPERATIONS, operations.collect())
                .of(io.operations_total)
                .or(nothing_of(cx, "block")),
            Sheet::new("who asked", ASKED, asked.collect()).of(io.groups_total).or(nothing_of(cx, "block")),
            Sheet::new("requests at once", IN_FLIGHT, in_flight.collect())
                .of(io.devices_total)
                .or(nothing_of(cx, "block")),
        ];
        if cx.machine.is_some() {
            sheets.push(devices(cx));
        } else if let Some(report) = sampled::report(cx).filter(|report| report.pressure.is_some()) {
            sheets.push(sampled::pressure(cx, report, &["io"]));
        }
        sheets
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::Open, Action::NextPanel, Action::Group]
    }
}
