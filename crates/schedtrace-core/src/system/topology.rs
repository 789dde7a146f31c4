//! CPUs, and which of them share a core, a last-level cache and a NUMA node.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{CpuList, read_text};
use crate::error::{Error, Result};
use crate::event::Cpu;

/// One logical CPU and where it sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuInfo {
    /// The kernel's number of it.
    pub cpu: Cpu,
    /// Physical core; unique on the machine: the lowest CPU number among its hardware threads.
    pub core: u32,
    /// Last-level cache domain; unique on the machine: the lowest CPU number that shares it.
    pub llc: u32,
    /// NUMA node.
    pub node: u32,
    /// Whether it was online.
    pub online: bool,
}

/// The CPUs of a machine, sorted by number. Numbers may be sparse.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// One entry per CPU that exists.
    pub cpus: Vec<CpuInfo>,
}

/// How far apart two CPUs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Locality {
    /// The same CPU.
    Cpu,
    /// Hardware threads of one core.
    Core,
    /// Cores that share a last-level cache.
    Llc,
    /// Caches of one NUMA node.
    Node,
    /// Different NUMA nodes.
    CrossNode,
    /// At least one of the two is not in the topology.
    Unknown,
}

impl Topology {
    /// Where a CPU sits.
    #[must_use]
    pub fn get(&self, cpu: Cpu) -> Option<&CpuInfo> {
        self.cpus.binary_search_by_key(&cpu, |info| info.cpu).ok().map(|at| &self.cpus[at])
    }

    /// How far apart two CPUs are.
    #[must_use]
    pub fn locality(&self, a: Cpu, b: Cpu) -> Locality {
        if a == b {
            return Locality::Cpu;
        }
        match (self.get(a), self.get(b)) {
            (Some(a), Some(b)) if a.core == b.core => Locality::Core,
            (Some(a), Some(b)) if a.llc == b.llc => Locality::Llc,
            (Some(a), Some(b)) if a.node == b.node => Locality::Node,
            (Some(_), Some(_)) => Locality::CrossNode,
            _ => Locality::Unknown,
        }
    }

    /// The CPUs that were online.
    #[must_use]
    pub fn online(&self) -> CpuList {
        self.infos().map(|info| info.cpu).collect()
    }

    /// The online CPUs grouped by a property, such as `|info| info.node`.
    pub fn group_by(&self, key: impl Fn(&CpuInfo) -> u32) -> BTreeMap<u32, Vec<Cpu>> {
        let mut groups: BTreeMap<u32, Vec<Cpu>> = BTreeMap::new();
        for info in self.infos() {
            groups.entry(key(info)).or_default().push(info.cpu);
        }
        groups
    }

    /// The online CPUs of each last-level cache.
    #[must_use]
    pub fn llcs(&self) -> BTreeMap<u32, Vec<Cpu>> {
        self.group_by(|info| info.llc)
    }

    /// One line: `2 CPUs, 1 core, 1 LLC, 1 node`; with CPUs that were offline, `6 of 8 CPUs, ...`.
    #[must_use]
    pub fn shape(&self) -> String {
        let of = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let online = self.infos().count();
        let cpus = match self.cpus.len() {
            all if all == online => of(all, "CPU"),
            all => format!("{online} of {}", of(all, "CPU")),
        };
        let cores = self.group_by(|info| info.core).len();
        let nodes = self.group_by(|info| info.node).len();
        format!("{cpus}, {}, {}, {}", of(cores, "core"), of(self.llcs().len(), "LLC"), of(nodes, "node"))
    }

    /// Reads it from sysfs (`/sys`).
    ///
    /// CPUs count as existing when they are present; slots into which a machine could take more (`possible`) do not.
    /// What is missing is filled in with the least that is certain: a CPU of unknown siblings is a core of its own;
    /// without cache information, as on some virtual machines, the CPUs of a package share their LLC, and without
    /// packages all do; without nodes there is one. Of an offline CPU nothing is known but its node.
    ///
    /// # Errors
    /// [`Error::Io`] if sysfs names no CPU.
    ///
    /// ```no_run
    /// let topology = schedtrace_core::system::Topology::read(std::path::Path::new("/sys"))?;
    /// assert_eq!(topology.shape(), "2 CPUs, 1 core, 1 LLC, 1 node");
    /// # Ok::<(), schedtrace_core::Error>(())
    /// ```
    pub fn read(sys: &Path) -> Result<Self> {
        let (present, online) = present_and_online(&sys.join("devices/system/cpu"))?;
        let nodes = nodes(&sys.join("devices/system/node"));
        let sites = present.into_iter().map(|cpu| {
            let folder = sys.join(format!("devices/system/cpu/cpu{cpu}"));
            let node = nodes.get(&cpu).copied().or_else(|| linked_node(&folder));
            if online.contains(cpu) { Site::read(cpu, &folder, node) } else { Site { cpu, node, ..Site::default() } }
        });
        Ok(Self { cpus: fill_in(&sites.collect::<Vec<_>>()) })
    }

    fn infos(&self) -> impl Iterator<Item = &CpuInfo> {
        self.cpus.iter().filter(|info| info.online)
    }
}

/// What sysfs says of one CPU.
#[derive(Debug, Default)]
struct Site {
    cpu: Cpu,
    online: bool,
    package: Option<i64>,
    core_id: Option<i64>,
    /// The lowest number among its hardware threads.
    core: Option<u32>,
    /// The lowest number that shares its last-level cache.
    llc: Option<u32>,
    node: Option<u32>,
}

impl Site {
    fn read(cpu: Cpu, folder: &Path, node: Option<u32>) -> Self {
        let topology = folder.join("topology");
        // -1 stands for "unknown".
        let number = |name| read_text(&topology.join(name)).ok()?.parse().ok().filter(|&id: &i64| id >= 0);
        let lowest = |name| lowest_beside(cpu, &topology.join(name));
        Self {
            cpu,
            online: true,
            package: number("physical_package_id"),
            core_id: number("core_id"),
            core: lowest("core_cpus_list").or_else(|| lowest("thread_siblings_list")),
            llc: last_level_cache(cpu, &folder.join("cache")),
            node,
        }
    }
}

/// The lowest number of a list, if it is the list of a group to which the CPU belongs.
fn lowest_beside(cpu: Cpu, list: &Path) -> Option<u32> {
    let list = read_list(list).filter(|list| list.contains(cpu))?;
    list.as_slice().first().map(|lowest| u32::from(lowest.0))
}

fn read_list(path: &Path) -> Option<CpuList> {
    CpuList::from_kernel(&read_text(path).ok()?)
}

/// The entries of a folder named `prefix` and a number.
fn numbered(folder: &Path, prefix: &str) -> io::Result<Vec<u32>> {
    let names = std::fs::read_dir(folder)?.flatten().map(|entry| entry.file_name());
    Ok(names.filter_map(|name| name.to_str()?.strip_prefix(prefix)?.parse().ok()).collect())
}

/// The CPUs that exist, and those that are online: all of them where the kernel does not say.
fn present_and_online(folder: &Path) -> Result<(CpuList, CpuList)> {
    let list = |name| read_list(&folder.join(name)).filter(|list| !list.as_slice().is_empty());
    let online = list("online");
    let present = match list("present").or_else(|| list("possible")) {
        Some(present) => present,
        None => {
            let found = numbered(folder, "cpu").map_err(Error::io("cannot list the CPUs in", folder))?;
            found.into_iter().filter_map(|n| u16::try_from(n).ok()).map(Cpu).collect()
        }
    };
    let present: CpuList = present.into_iter().chain(online.clone().unwrap_or_default()).collect();
    if present.as_slice().is_empty() {
        let source = io::Error::new(io::ErrorKind::NotFound, "there is none; is sysfs mounted?");
        return Err(Error::Io { what: "cannot list the CPUs in", path: folder.to_owned(), source });
    }
    let online = online.unwrap_or_else(|| present.clone());
    Ok((present, online))
}

/// The NUMA node of each CPU.
fn nodes(folder: &Path) -> BTreeMap<Cpu, u32> {
    let nodes = numbered(folder, "node").unwrap_or_default();
    let cpus = |node: u32| read_list(&folder.join(format!("node{node}/cpulist"))).unwrap_or_default();
    nodes.into_iter().flat_map(|node| cpus(node).into_iter().map(move |cpu| (cpu, node))).collect()
}

/// The node to which a CPU's folder links; the lists of nodes leave offline CPUs out.
fn linked_node(folder: &Path) -> Option<u32> {
    numbered(folder, "node").ok()?.into_iter().min()
}

/// The lowest number that shares the cache of the highest level that holds data.
fn last_level_cache(cpu: Cpu, folder: &Path) -> Option<u32> {
    let caches = numbered(folder, "index").ok()?.into_iter().filter_map(|index| {
        let cache = folder.join(format!("index{index}"));
        let level: u32 = read_text(&cache.join("level")).ok()?.parse().ok()?;
        let holds_data = read_text(&cache.join("type")).map_or(true, |kind| kind != "Instruction");
        let lowest = lowest_beside(cpu, &cache.join("shared_cpu_list"))?;
        holds_data.then_some((level, lowest))
    });
    caches.max_by_key(|&(level, _)| level).map(|(_, lowest)| lowest)
}

/// Puts the least that is certain in the place of what sysfs did not say.
fn fill_in(sites: &[Site]) -> Vec<CpuInfo> {
    // The first CPU of each package without caches, and of each core without a list of its threads.
    let mut packages: BTreeMap<Option<i64>, u32> = BTreeMap::new();
    let mut cores: BTreeMap<(i64, i64), u32> = BTreeMap::new();
    let infos = sites.iter().map(|site| {
        let number = u32::from(site.cpu.0);
        let by_id = site.package.zip(site.core_id);
        let core = site.core.or_else(|| Some(*cores.entry(by_id?).or_insert(number))).unwrap_or(number);
        let llc = match site.llc {
            Some(llc) => llc,
            None if site.online => *packages.entry(site.package).or_insert(number),
            None => number,
        };
        CpuInfo { cpu: site.cpu, core, llc, node: site.node.unwrap_or(0), online: site.online }
    });
    infos.collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::write;
    use super::*;

    /// A folder that looks like sysfs.
    struct Sys(tempfile::TempDir);

    impl Sys {
        fn new(present: &str, online: &str) -> Self {
            let sys = Self(tempfile::tempdir().unwrap());
            sys.cpu("possible", "0-511");
            sys.cpu("present", present);
            sys.cpu("online", online);
            // Neither of them is a CPU.
            sys.cpu("cpufreq/boost", "1");
            sys.cpu("cpuidle/current_driver", "none");
            sys
        }
        fn cpu(&self, path: &str, text: &str) {
            write(self.0.path(), &format!("devices/system/cpu/{path}"), &format!("{text}\n"));
        }
        fn node(&self, node: u32, cpus: &str) {
            write(self.0.path(), &format!("devices/system/node/node{node}/cpulist"), &format!("{cpus}\n"));
        }
        /// One CPU with two L1 and an L2 per core, and an L3.
        fn place(&self, cpu: u16, package: u16, core_id: u16, siblings: &str, l3: &str) {
            self.cpu(&format!("cpu{cpu}/topology/physical_package_id"), &package.to_string());
            self.cpu(&format!("cpu{cpu}/topology/core_id"), &core_id.to_string());
            self.cpu(&format!("cpu{cpu}/topology/thread_siblings_list"), siblings);
            let caches = [("1", "Data", siblings), ("1", "Instruction", siblings), ("2", "Unified", siblings)];
            for (index, (level, kind, shared)) in caches.into_iter().chain([("3", "Unified", l3)]).enumerate() {
                self.cpu(&format!("cpu{cpu}/cache/index{index}/level"), level);
                self.cpu(&format!("cpu{cpu}/cache/index{index}/type"), kind);
                self.cpu(&format!("cpu{cpu}/cache/index{index}/shared_cpu_list"), shared);
            }
        }
        fn forget(&self, path: &str) {
            let path = self.0.path().join("devices/system/cpu").join(path);
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
        }
        fn read(&self) -> Topology {
            Topology::read(self.0.path()).unwrap()
        }
    }

    fn info(cpu: u16, core: u32, llc: u32, node: u32) -> CpuInfo {
        CpuInfo { cpu: Cpu(cpu), core, llc, node, online: true }
    }

    fn cpus(list: &str) -> Vec<Cpu> {
        list.parse::<CpuList>().unwrap().into_iter().collect()
    }

    /// Two sockets of two cores of two threads; the threads of a core are four numbers apart.
    fn two_sockets() -> Sys {
        let sys = Sys::new("0-7", "0-7");
        for cpu in 0..8 {
            let (core, package) = (cpu % 4, cpu % 4 / 2);
            let l3 = if package == 0 { "0-1,4-5" } else { "2-3,6-7" };
            sys.place(cpu, package, core % 2, &format!("{core},{}", core + 4), l3);
        }
        sys.node(0, "0-1,4-5");
        sys.node(1, "2-3,6-7");
        sys
    }

    #[test]
    fn two_sockets_with_hardware_threads() {
        let topology = two_sockets().read();
        let expected = [(0, 0, 0, 0), (1, 1, 0, 0), (2, 2, 2, 1), (3, 3, 2, 1), (4, 0, 0, 0), (5, 1, 0, 0)];
        assert_eq!(topology.cpus[..6], expected.map(|(cpu, core, llc, node)| info(cpu, core, llc, node)));
        assert_eq!(topology.shape(), "8 CPUs, 4 cores, 2 LLCs, 2 nodes");
        assert_eq!(topology.llcs(), BTreeMap::from([(0, cpus("0-1,4-5")), (2, cpus("2-3,6-7"))]));
        let locality = |a, b| topology.locality(Cpu(a), Cpu(b));
        assert_eq!(locality(3, 3), Locality::Cpu);
        assert_eq!(locality(0, 4), Locality::Core);
        assert_eq!(locality(0, 5), Locality::Llc);
        assert_eq!(locality(0, 2), Locality::CrossNode);
        assert_eq!(locality(0, 8), Locality::Unknown);
    }

    #[test]
    fn numbers_may_be_sparse_and_cpus_offline() {
        let sys = Sys::new("0,7,300-302", "0,7,300");
        sys.place(0, 0, 0, "0", "0,7");
        sys.place(7, 0, 1, "7", "0,7");
        sys.place(300, 1, 0, "300", "300");
        sys.node(0, "0,7");
        sys.node(4, "300");
        // An offline CPU has a folder with a link to its node.
        sys.cpu("cpu301/node4/cpulist", "");
        sys.cpu("cpu301/online", "0");
        let topology = sys.read();
        let offline = |info| CpuInfo { online: false, ..info };
        let off = [offline(info(301, 301, 301, 4)), offline(info(302, 302, 302, 0))];
        assert_eq!(topology.cpus, [info(0, 0, 0, 0), info(7, 7, 0, 0), info(300, 300, 300, 4), off[0], off[1]]);
        assert_eq!(topology.shape(), "3 of 5 CPUs, 3 cores, 2 LLCs, 2 nodes");
        assert_eq!(topology.online().to_string(), "0,7,300");
        assert_eq!(topology.get(Cpu(300)), Some(&info(300, 300, 300, 4)));
        assert_eq!(topology.locality(Cpu(300), Cpu(301)), Locality::Node);
        sys.cpu("present", "0");
        assert_eq!(sys.read().shape(), "3 CPUs, 3 cores, 2 LLCs, 2 nodes", "what is online exists");
    }

    #[test]
    fn without_caches_the_package_stands_for_them_and_then_the_machine() {
        let sys = two_sockets();
        (0..8).for_each(|cpu| sys.forget(&format!("cpu{cpu}/cache")));
        assert_eq!(sys.read().llcs(), BTreeMap::from([(0, cpus("0-1,4-5")), (2, cpus("2-3,6-7"))]));
        (0..8).for_each(|cpu| sys.cpu(&format!("cpu{cpu}/topology/physical_package_id"), "-1"));
        assert_eq!(sys.read().llcs(), BTreeMap::from([(0, cpus("0-7"))]));
    }

    #[test]
    fn without_an_l3_the_l2_is_the_last_level() {
        let sys = two_sockets();
        (0..8).for_each(|cpu| sys.forget(&format!("cpu{cpu}/cache/index3")));
        assert_eq!(sys.read().shape(), "8 CPUs, 4 cores, 4 LLCs, 2 nodes");
        sys.cpu("cpu1/cache/index1/level", "9");
        sys.cpu("cpu1/cache/index1/shared_cpu_list", "0-7");
        assert_eq!(sys.read().get(Cpu(1)), Some(&info(1, 1, 1, 0)), "a cache of instructions is none");
    }

    #[test]
    fn without_sibling_lists_package_and_core_id_tell_the_core() {
        let sys = two_sockets();
        (0..8).for_each(|cpu| sys.forget(&format!("cpu{cpu}/topology/thread_siblings_list")));
        let topology = sys.read();
        assert_eq!(topology.cpus.iter().map(|info| info.core).collect::<Vec<_>>(), [0, 1, 2, 3, 0, 1, 2, 3]);
        sys.cpu("cpu5/topology/core_cpus_list", "5");
        assert_eq!(sys.read().get(Cpu(5)).map(|info| info.core), Some(5), "the newer name of the list");
    }

    #[test]
    fn a_list_that_leaves_its_own_cpu_out_is_not_believed() {
        let sys = two_sockets();
        sys.cpu("cpu1/cache/index3/shared_cpu_list", "2-3");
        assert_eq!(sys.read().get(Cpu(1)), Some(&info(1, 1, 1, 0)), "its L2 is the last it can trust");
        for cpu in [4, 5] {
            sys.cpu(&format!("cpu{cpu}/topology/thread_siblings_list"), "7-6");
            sys.cpu(&format!("cpu{cpu}/topology/core_id"), "-1");
        }
        assert_eq!(sys.read().get(Cpu(5)), Some(&info(5, 5, 0, 0)), "a core of its own");
    }

    #[test]
    fn any_file_may_be_missing_or_nonsense() {
        let whole = two_sockets();
        let mut files = Vec::new();
        let mut folders = vec![whole.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() { &mut folders } else { &mut files }.push(path);
            }
        }
        // Every kind of file is among those of two CPUs of different sockets.
        let others = [1, 3, 4, 5, 6, 7].map(|cpu| whole.0.path().join(format!("devices/system/cpu/cpu{cpu}")));
        files.retain(|file| !others.iter().any(|folder| file.starts_with(folder)));
        assert!(files.len() > 30, "{}", files.len());
        for file in files {
            let check = |what: &str| {
                let topology = whole.read();
                assert_eq!(topology.online().as_slice(), cpus("0-7"), "{what:?} {}", file.display());
            };
            let text = std::fs::read(&file).unwrap();
            std::fs::remove_file(&file).unwrap();
            check("missing");
            for nonsense in [&b""[..], b"\0\xff", b"-", b"9999999999999999999999"] {
                std::fs::write(&file, nonsense).unwrap();
                check(&String::from_utf8_lossy(nonsense));
            }
            std::fs::write(&file, text).unwrap();
        }
    }

    #[test]
    fn without_lists_the_folders_count_and_without_those_it_is_an_error() {
        let sys = two_sockets();
        ["possible", "present", "online"].iter().for_each(|name| sys.forget(name));
        assert_eq!(sys.read().shape(), "8 CPUs, 4 cores, 2 LLCs, 2 nodes");
        (0..8).for_each(|cpu| sys.forget(&format!("cpu{cpu}")));
        let error = Topology::read(sys.0.path()).unwrap_err().to_string();
        assert!(error.ends_with("devices/system/cpu: there is none; is sysfs mounted?"), "{error}");
        sys.forget("");
        assert!(matches!(Topology::read(sys.0.path()), Err(Error::Io { .. })));
    }

    #[test]
    fn this_machine_is_read() {
        let topology = Topology::read(Path::new("/sys")).unwrap();
        let usable = std::thread::available_parallelism().unwrap().get();
        assert!(topology.online().as_slice().len() >= usable, "{}", topology.shape());
        assert!(topology.cpus.is_sorted_by_key(|info| info.cpu));
        for info in topology.cpus.iter().filter(|info| info.online) {
            assert_eq!(topology.get(info.cpu), Some(info));
            assert!(topology.llcs()[&info.llc].contains(&info.cpu));
        }
    }
}
