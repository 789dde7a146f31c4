//! Views: queries with names, shaped like tables of Perfetto's trace processor, so that queries which are known from there
//! run here. <https://perfetto.dev/docs/analysis/sql-tables>

/// A view.
pub(super) struct View {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) sql: &'static str,
    /// What the columns are, in order; those that say of which trace a row is follow.
    pub(super) columns: &'static [(&'static str, &'static str)],
}

/// In an order in which each needs those before it only. `{origin}` stands for the columns that say of which trace a row
/// is.
pub(super) const VIEWS: [View; 4] = [
    View {
        name: "sched",
        about: "`sched_slice` with the end of each slice.",
        sql: "select ts, dur, ts + dur as ts_end, cpu, utid, end_state, priority{origin} from sched_slice",
        columns: &[
            ("ts", "When the task got the CPU."),
            ("dur", "How long it had it."),
            ("ts_end", "When it left it."),
            ("cpu", "Which CPU."),
            ("utid", "Which task; 0 if the CPU was idle."),
            ("end_state", "How it ended, as in `sched_slice`."),
            ("priority", "Kernel priority with which it came."),
        ],
    },
    View {
        name: "thread",
        about: "Threads: `task` by other names. All idle tasks are one row, of `utid` 0, and of no trace.",
        sql: "select coalesce(utid, 0) as utid, tid, comm as name, upid, start_ts, end_ts, is_main_thread, is_idle{origin} from task \
              where not is_idle \
              union all select 0, 0, 'swapper', null, null, null, true, true{idle} from task \
              where is_idle and utid is not null",
        columns: &[
            ("utid", "The number by which other tables name it."),
            ("tid", "Thread id."),
            ("name", "Its name."),
            ("upid", "Its process; NULL of the idle task."),
            ("start_ts", "When it was created."),
            ("end_ts", "When it began to exit; NULL if it was not seen to."),
            ("is_main_thread", "It is the leader of its process."),
            ("is_idle", "It is the idle task."),
        ],
    },
    View {
        name: "process",
        about: "Processes: one row for each, with what is known of its leader.",
        sql: "select p.upid, p.pid, coalesce(l.comm, p.name) as name, coalesce(l.start_ts, p.start_ts) as start_ts, \
              l.end_ts, parent.upid as parent_upid, coalesce(l.cgroup, p.cgroup) as cgroup{p_origin} \
              from (select upid, min(pid) as pid, min(comm) as name, min(start_ts) as start_ts, min(ppid) as ppid, \
              min(cgroup) as cgroup{origin} from task where not is_idle group by upid{origin}) p \
              left join task l on l.utid = p.upid \
              left join (select pid, max(upid) as upid{origin} from task where not is_idle group by pid{origin}) parent \
              on parent.pid = p.ppid{same}",
        columns: &[
            ("upid", "The number by which other tables name it."),
            ("pid", "Process id."),
            ("name", "Name of its leader; where that one was not seen, of one of its threads."),
            ("start_ts", "When it was created."),
            ("end_ts", "When its leader began to exit; NULL if it was not seen to."),
            ("parent_upid", "Its parent; of processes with the same id, the last. NULL if not seen."),
            ("cgroup", "The path of its cgroup; NULL if not known."),
        ],
    },
    View {
        name: "trace_bounds",
        about: "The time that a query covers.",
        sql: "select min(from_ts) as start_ts, max(until_ts) as end_ts from trace_info",
        columns: &[("start_ts", "When the first recording began."), ("end_ts", "To when the last one goes.")],
    },
];

impl View {
    /// The query, for one trace or for many.
    pub(super) fn query(&self, many: bool) -> String {
        let [origin, p_origin, idle, same] = if many {
            [", host, trace", ", p.host, p.trace", ", null, null", " and parent.trace = p.trace"]
        } else {
            [""; 4]
        };
        let sql = self.sql.replace("{origin}", origin).replace("{p_origin}", p_origin);
        sql.replace("{idle}", idle).replace("{same}", same)
    }
}
