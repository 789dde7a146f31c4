//! Idle states and frequencies.

use schedtrace_core::analysis::{GroupBy, ReportName};
use schedtrace_core::system::CpuHardware;

use super::relations::{nothing_of, row};
use super::system::{sheet, told};
use super::{Cx, View};
use crate::engine::Wants;
use crate::keys::Action;
use crate::machine::Part;
use crate::sheet::{Column, Sheet, Target, Value};

pub(super) struct Power;

const STATES: &[Column] = &[
    Column { name: "STATE", about: "Which idle state, by its number; the higher the deeper.", width: 8, rank: 0 },
    Column { name: "ENTRIES", about: "How often.", width: 9, rank: 1 },
    Column { name: "TIME", about: "All together.", width: 9, rank: 1 },
    Column { name: "P50", about: "How long at a time: the median.", width: 8, rank: 1 },
    Column { name: "P99", about: "99 of 100 not longer.", width: 8, rank: 1 },
    Column { name: "LONGEST", about: "The longest.", width: 8, rank: 1 },
];

const CPUS: &[Column] = &[
    Column { name: "CPU", about: "Its number.", width: 6, rank: 0 },
    Column { name: "IDLE", about: "Time in idle states.", width: 9, rank: 1 },
    Column { name: "ACTIVE", about: "Time out of them.", width: 9, rank: 1 },
    Column { name: "MHZ", about: "Its frequency, on average.", width: 7, rank: 1 },
    Column { name: "LEAST", about: "The lowest it had.", width: 7, rank: 2 },
    Column { name: "MOST", about: "The highest it had.", width: 7, rank: 2 },
    Column { name: "CHANGES", about: "How often it changed.", width: 8, rank: 2 },
];

const NOW: &[Column] = &[
    Column { name: "CPU", about: "Its number.", width: 6, rank: 0 },
    Column { name: "MHZ", about: "The frequency that it has, or was told to have, now.", width: 7, rank: 0 },
    Column { name: "OF MOST", about: "The same, as a share of the highest that it can have.", width: 8, rank: 1 },
    Column { name: "LEAST", about: "The lowest that it can have.", width: 7, rank: 2 },
    Column { name: "MOST", about: "The highest that it can have.", width: 7, rank: 1 },
    Column { name: "GOVERNOR", about: "Who sets it.", width: 14, rank: 1 },
    Column { name: "CAPACITY", about: "What it can do next to the fastest CPU, which has 1024.", width: 8, rank: 2 },
];

/// Which frequencies the CPUs have now.
fn now(cx: &Cx<'_>) -> Sheet {
    let mhz = |hz: Option<u64>| hz.map_or(Value::None, |hz| Value::Count(hz / 1_000_000));
    let now = sheet("frequencies now", NOW, told(cx, |machine| &machine.hardware), |hardware| {
        let told = |cpu: &&CpuHardware| cpu.current_hz.or(cpu.max_hz).is_some() || cpu.capacity.is_some();
        let share = |cpu: &CpuHardware| cpu.current_hz.zip(cpu.max_hz.filter(|&most| most > 0));
        let of = |cpu: &CpuHardware| {
            row(
                Target::Cpu(cpu.cpu),
                vec![
                    Value::Count(cpu.cpu.0.into()),
                    mhz(cpu.current_hz),
                    share(cpu).map_or(Value::None, |(now, most)| Value::Ratio(now as f64 / most as f64)),
                    mhz(cpu.min_hz),
                    mhz(cpu.max_hz),
                    cpu.governor.clone().map_or(Value::None, Value::text),
                    cpu.capacity.map_or(Value::None, |capacity| Value::Count(capacity.into())),
                ],
            )
        };
        hardware.cpus.iter().filter(told).map(of).collect()
    });
    now.or_if_empty("this machine tells no frequencies: virtual machines have none of their own")
}

impl View for Power {
    fn wants(&self, _: GroupBy, _: u16) -> Wants {
        Wants::default().report(GroupBy::Cpu, ReportName::Power)
    }

    fn machine(&self) -> &'static [Part] {
        &[Part::Hardware]
    }

    fn sheets(&self, cx: &Cx<'_>) -> Vec<Sheet> {
        if cx.without.is_some() {
            return vec![now(cx)];
        }
        let Some(power) = cx.picture.report(GroupBy::Cpu).and_then(|set| set.power.as_ref()) else { return Vec::new() };
        let states = power.states.iter().map(|state| {
            let (time, residency) = (&state.time, &state.residency.summary);
            row(
                Target::Named(time.state.to_string()),
                vec![
                    Value::text(time.state.to_string()),
                    Value::Count(time.entries),
                    Value::Lasted(time.time_ns),
                    Value::of(residency, |s| s.p50_ns),
                    Value::of(residency, |s| s.p99_ns),
                    Value::of(residency, |s| s.max_ns),
                ],
            )
        });
        let cpus = power.cpus.iter().map(|cpu| {
            let mhz = |khz: Option<f64>| khz.map_or(Value::None, |khz| Value::Count((khz / 1e3) as u64));
            let frequency = cpu.frequency.as_ref();
            row(
                Target::Cpu(cpu.cpu),
                vec![
                    Value::Count(cpu.cpu.0.into()),
                    Value::Lasted(cpu.idle_ns),
                    Value::Lasted(cpu.active_ns),
                    mhz(frequency.map(|f| f.mean_khz)),
                    mhz(frequency.map(|f| f.min_khz.into())),
                    mhz(frequency.map(|f| f.max_khz.into())),
                    frequency.map_or(Value::None, |f| Value::Count(f.changes)),
                ],
            )
        });
        let is_known = power.cpus.iter().any(|cpu| cpu.idle_ns + cpu.active_ns > 0 || cpu.frequency.is_some());
        vec![
            Sheet::new("idle states", STATES, states.collect()).of(power.states_total).or(nothing_of(cx, "power")),
            Sheet::new("CPUs", CPUS, if is_known { cpus.collect() } else { Vec::new() }).or(nothing_of(cx, "power")),
            now(cx),
        ]
    }

    fn actions(&self) -> &'static [Action] {
        &[Action::NextPanel, Action::SortNext]
    }
}
