//! The machine's CPUs, by last-level cache.

use schedtrace_core::Cpu;
use schedtrace_core::system::{CpuList, Topology};
use serde_json::{Value, json};

pub(crate) fn describe(topology: &Topology, of: &str) -> Value {
    let caches: Vec<Value> = topology
        .llcs()
        .into_iter()
        .map(|(llc, cpus)| {
            let info = cpus.first().and_then(|&cpu| topology.get(cpu));
            let mut cores: Vec<u32> = cpus.iter().filter_map(|&cpu| topology.get(cpu)).map(|info| info.core).collect();
            cores.sort_unstable();
            cores.dedup();
            json!({
                "llc": llc,
                "node": info.map(|info| info.node),
                "cpus": list(cpus.iter().copied()),
                "cores": cores.len(),
            })
        })
        .collect();
    let offline = topology.cpus.iter().filter(|info| !info.online).map(|info| info.cpu);
    json!({
        "summary": format!("{of}: {}.", topology.shape()),
        "online": topology.online().to_string(),
        "offline": list(offline),
        "llcs": caches,
        "next": "`analyze` with `by` cpu or llc says where tasks waited.",
    })
}

fn list(cpus: impl Iterator<Item = Cpu>) -> String {
    cpus.collect::<CpuList>().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedtrace_core::Source;
    use schedtrace_core::synthetic::SyntheticHost;

    #[test]
    fn a_large_machine_fits_an_answer() {
        let host = SyntheticHost::new().cpus(512).llcs(64).nodes(8).start();
        let told = describe(&host.meta().topology, "a test");
        assert_eq!(told["summary"], "a test: 512 CPUs, 512 cores, 64 LLCs, 8 nodes.");
        assert_eq!(told["llcs"][1], json!({"llc": 8, "node": 0, "cpus": "8-15", "cores": 8}));
        assert!(told.to_string().len() < 5_000 * 3, "{} bytes", told.to_string().len());
    }
}
