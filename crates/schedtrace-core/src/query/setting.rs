//! Tables of who and where: tasks, CPUs, and the traces themselves.

use std::collections::BTreeMap;

use super::origin::Origin;
use super::producer::{IDLE, Rows};
use super::tables::{CpuColumns, CpuRow, TaskColumns, TaskRow, TraceColumns, TraceRow};
use crate::error::Result;
use crate::event::{Task, TaskId};

/// Rows of `task`.
pub(super) fn tasks(origin: &Origin, mut rows: Rows<TaskColumns>) -> Result<()> {
    let people = origin.people()?;
    let leaders = leaders(people.tasks.values());
    let first_idle = people.tasks.keys().find(|task| task.is_idle()).filter(|_| origin.is_first()).copied();
    for task in people.tasks.values() {
        let has_utid = !task.id.is_idle() || Some(task.id) == first_idle;
        let comm = if task.id.is_idle() { IDLE.to_owned() } else { task.comm.to_string() };
        rows.columns.push(TaskRow {
            utid: has_utid.then(|| origin.utid(task.id)),
            task_id: task.id.0,
            tid: task.tid,
            pid: task.tgid,
            ppid: task.ppid,
            upid: origin.utid(leaders.get(&task.id).copied().unwrap_or(task.id)),
            comm: &comm,
            cgroup_id: task.cgroup.0.cast_signed(),
            cgroup: people.paths.get(&task.cgroup).map(|path| &**path),
            start_ts: task.start,
            end_ts: people.ends.get(&task.id).copied(),
            is_main_thread: task.tid == task.tgid,
            kernel: task.kernel,
            is_idle: task.id.is_idle(),
            recorder: task.recorder,
        });
        rows.added();
        if rows.is_left() {
            break;
        }
    }
    rows.flush();
    Ok(())
}

/// For each task, the one that stands for its process. Process ids are used again: a leader stands for the threads that
/// were created until the next one was.
fn leaders<'a>(tasks: impl Iterator<Item = &'a Task> + Clone) -> BTreeMap<TaskId, TaskId> {
    let mut processes: BTreeMap<u32, Vec<&Task>> = BTreeMap::new();
    for task in tasks {
        processes.entry(task.tgid).or_default().push(task);
    }
    let mut leaders = BTreeMap::new();
    for mut threads in processes.into_values() {
        // The leader is created first; where it was not seen, the first thread stands for it.
        threads.sort_by_key(|task| (task.start, task.tid != task.tgid, task.id));
        let mut leader = threads[0].id;
        for task in threads {
            if task.tid == task.tgid {
                leader = task.id;
            }
            leaders.insert(task.id, leader);
        }
    }
    leaders
}

/// Rows of `cpu`.
pub(super) fn cpus(origin: &Origin, mut rows: Rows<CpuColumns>) -> Result<()> {
    for cpu in &origin.setting()?.meta.topology.cpus {
        let (number, core, llc, node, online) = (cpu.cpu.0, cpu.core, cpu.llc, cpu.node, cpu.online);
        rows.columns.push(CpuRow { cpu: number, core, llc, node, online });
        rows.added();
    }
    rows.flush();
    Ok(())
}

/// The row of `trace_info`.
pub(super) fn traces(origin: &Origin, mut rows: Rows<TraceColumns>) -> Result<()> {
    let setting = origin.setting()?;
    let clock = setting.meta.clocks.first();
    let utc_offset =
        clock.and_then(|clock| i64::try_from(i128::from(clock.realtime_ns.0) - i128::from(clock.monotonic_ns.0)).ok());
    rows.columns.push(TraceRow {
        path: &origin.path,
        kernel: &setting.meta.host.kernel,
        from_ts: setting.meta.started,
        until_ts: setting.until.max(setting.meta.started),
        utc_offset,
        state: setting.state,
        lost: i64::try_from(setting.lost).unwrap_or(i64::MAX),
        complete: setting.lost == 0 && matches!(setting.state, "finished" | "live"),
    });
    rows.flush();
    Ok(())
}
