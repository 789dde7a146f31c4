use proptest::prelude::*;

use super::*;
use crate::event::{
    Address, BlockComplete, BlockInsert, BlockIssue, BlockOp, Comm, Context, Exec, Exit, Fork, FutexWait, IrqEntry,
    IrqExit, Migrate, Name, Nanos, ScxDispatch, Softirq, SoftirqEntry, Switch, TaskState, Waking, WorkStart,
};

fn at(cpu: u16, kind: impl Into<EventKind>) -> Event {
    Event { ts: Nanos(9_000_000), cpu: Cpu(cpu), kind: kind.into() }
}

fn accepts(filter: &str, event: &Event) -> bool {
    let mut filter: EventFilter = filter.parse().unwrap();
    let task = Task { id: TaskId(7), tid: 70, tgid: 77, comm: Comm::new("nginx"), ..Task::idle(Cpu(0)) };
    let name = Name::new(NameId(5), Nanos(0), b"vmstat_update");
    filter.learn(&Batch { tasks: vec![task], names: vec![name], ..Batch::default() });
    filter.accepts(event)
}

#[test]
fn conditions_hold_all_or_not() {
    let (task, duration_ns) = (TaskId(7), Nanos(1_500_000));
    let wait = at(3, FutexWait { task, address: Address(0x7f00), duration_ns, result: -110 });
    for filter in [
        "duration_ns > 1499999",
        "duration_us>=1500",
        "duration_ms > 1",
        "duration_ns = 1500us",
        "futex_wait.duration_ns <= 2ms",
        "event = futex_wait",
        "event != sched_switch",
        "event = futex and cpu = 3",
        "group = futex, cpu < 4 && result = -110",
        "address == 0x7f00",
        "comm = nginx and tid = 70 and pid = 77",
        "comm = 'nginx'",
        "ts_ns >= 9000000",
    ] {
        assert!(accepts(filter, &wait), "{filter}");
    }
    for filter in
        ["duration_ms > 1.5ms and cpu = 3", "cpu > 3", "event = irq", "comm != nginx", "latency_ns > 0", "result > 0"]
    {
        let read = filter.parse::<EventFilter>();
        assert!(read.is_err() || !accepts(filter, &wait), "{filter}");
    }
    assert!(accepts("vector = TIMER", &at(0, SoftirqEntry { vector: Softirq(1) })));
    assert!(accepts("function = vmstat_update", &at(0, WorkStart { task, function: NameId(5) })));
    assert!(!accepts("function = vmstat_update", &at(0, WorkStart { task, function: NameId(6) })));
}

#[test]
fn what_scxtop_s_users_wrote_keeps_working() {
    let (task, dsq_id, latency_ns) = (TaskId(7), Address(8), Nanos(1_200_000));
    let run = at(1, ScxDispatch { task, dsq_id, latency_ns, depth: 4, layer: 2 });
    for filter in [
        "dsq_lat_us > 1000",
        "event = sched_switch and dsq_lat_us > 1000",
        "sched_switch.dsq_lat_us > 1000",
        "layer_id = 2",
        "dsq_nr_queued = 4",
    ] {
        assert!(accepts(filter, &run), "{filter}");
    }
    assert!(!accepts("dsq_lat_us > 1200", &run), "it is no longer than that");
}

#[test]
fn what_cannot_be_read_says_why() {
    for (filter, why) in [
        ("", "nothing in it"),
        ("duration_ns", "compares nothing"),
        ("duration_ns > long", "a number"),
        ("length > 3", "no event there has a field `length`"),
        ("futex_wait.vector = TIMER", "no event there has a field `vector`"),
        ("event = dream", "no event is called `dream`"),
        ("group = dream", "use one of sched, irq"),
        ("comm > nginx", "use =, !=, ~ or !~"),
        ("moved = perhaps", "true or false"),
    ] {
        let error = filter.parse::<EventFilter>().unwrap_err().to_string();
        assert!(error.contains(why), "{filter}: {error}");
    }
}

/// 70 is nginx, 80 is bash, and idle CPUs have names of their own.
fn knows(filter: &str, event: &Event) -> bool {
    knows_of(filter.parse().unwrap(), event)
}

fn knows_of(mut filter: EventFilter, event: &Event) -> bool {
    let task =
        |id, tid, comm: &str| Task { id: TaskId(id), tid, tgid: 77, comm: Comm::new(comm), ..Task::idle(Cpu(0)) };
    let name = |id, text: &str| Name::new(NameId(id), Nanos(0), text.as_bytes());
    let tasks = vec![task(7, 70, "nginx"), task(8, 80, "bash, and more")];
    filter.learn(&Batch { tasks, names: vec![name(5, "sda"), name(6, "virtio0-input")], ..Batch::default() });
    filter.accepts(event)
}

fn all_and_none(event: &Event, holds: &[&str], not: &[&str]) {
    for filter in holds {
        assert!(knows(filter, event), "{filter}");
    }
    for filter in not {
        assert!(!knows(filter, event), "{filter}");
    }
}

fn switch(prev: TaskId, next: TaskId) -> Event {
    let (prev_state, prev_prio, next_prio) = (TaskState::INTERRUPTIBLE, 120, 98);
    at(1, EventKind::Switch(Switch { prev, next, prev_state, preempted: false, prev_prio, next_prio }))
}

#[test]
fn a_switch_has_the_kernel_s_fields() {
    let between_tasks = switch(TaskId(7), TaskId(8));
    all_and_none(
        &between_tasks,
        &[
            "prev_pid != 0 && next_pid != 0",
            "prev_pid = 70",
            "sched_switch.prev_pid = 70 and next_pid = 80",
            "sched:sched_switch.prev_pid == 70",
            "prev_comm = nginx",
            "next_comm = 'bash, and more' and prev_comm = nginx",
            "next_comm ~ '^bash, and'",
            "prev_comm !~ bash",
            "next_prio < 100, prev_prio >= 120",
            "prev_state = S",
            "prev_state = 1",
            "prev_state ~ '[SD]'",
            "event = sched:sched_switch",
            "comm ~ ^bash",
        ],
        &["prev_pid = 77", "prev_pid = 0", "prev_comm = bash", "next_prio > 98", "prev_state = R", "prev_state = D"],
    );
    let from_idle = switch(TaskId::idle(Cpu(3)), TaskId(8));
    all_and_none(
        &from_idle,
        &["prev_pid = 0", "prev_comm = swapper/3", "prev_comm ~ '^swapper/'"],
        &["prev_pid != 0 && next_pid != 0", "sched_waking.pid = 80"],
    );
    let preempted = Switch { prev: TaskId(7), next: TaskId(8), preempted: true, ..Switch::of(&between_tasks) };
    all_and_none(&at(1, EventKind::Switch(preempted)), &["prev_state = R+", "prev_state = 0x100"], &["prev_state = S"]);
    // Nobody knows whether the task 9, which was not told, is 0.
    let unknown = switch(TaskId(9), TaskId(8));
    all_and_none(&unknown, &["next_pid != 0"], &["prev_pid != 0", "prev_pid = 0", "prev_comm !~ x"]);
}

impl Switch {
    fn of(event: &Event) -> Self {
        let EventKind::Switch(switch) = event.kind else { panic!("{event:?}") };
        switch
    }
}

#[test]
fn other_tracepoints_have_the_kernel_s_fields() {
    let (task, current) = (TaskId(7), TaskId(8));
    let waking = Waking { task, current, context: Context::Task, prev_cpu: Cpu(4), on_cpu: false, prio: 97 };
    all_and_none(
        &at(1, EventKind::Waking(waking)),
        &["sched_waking.pid = 70", "sched_waking.comm = nginx", "target_cpu = 4", "prio = 97", "tid = 80", "pid = 77"],
        // Of the tracepoint it is the thread that is woken; of any event, any process.
        &["sched_waking.pid = 77", "sched_waking.comm ~ bash", "pid = 70", "sched_wakeup.pid = 70"],
    );
    let migrate = Migrate { task, from: Cpu(2), to: Cpu(3), placed: false, prio: 120 };
    all_and_none(&at(1, EventKind::Migrate(migrate)), &["orig_cpu = 2, dest_cpu > 2"], &["dest_cpu = 2"]);
    let fork = at(1, EventKind::Fork(Fork { parent: task, child: current }));
    all_and_none(&fork, &["parent_pid = 70 and child_pid = 80", "child_comm ~ bash"], &["parent_comm = bash"]);
    let exec = at(1, EventKind::Exec(Exec { task, old_tid: 71 }));
    all_and_none(&exec, &["old_pid = 71", "sched_process_exec.pid = 70"], &["old_pid = 70"]);
    let exit = at(1, EventKind::Exit(Exit { task, group_dead: true }));
    all_and_none(&exit, &["group_dead = 1", "sched_process_exit.comm = nginx"], &["group_dead = 0"]);
    all_and_none(
        &at(0, SoftirqEntry { vector: Softirq(1) }),
        &["vec = 1", "vec = TIMER", "vec < 3"],
        &["vec = NET_TX"],
    );
    let irq = at(0, IrqEntry { irq: 30, action: NameId(6) });
    all_and_none(&irq, &["irq = 30 and name ~ virtio", "name = virtio0-input"], &["name = virtio", "ret = 0"]);
    all_and_none(
        &at(0, IrqExit { irq: 30, handled: true }),
        &["ret = 1", "irq:irq_handler_exit.irq = 30"],
        &["ret = 0"],
    );
}

#[test]
fn requests_have_the_kernel_s_fields() {
    let (task, device) = (TaskId(7), NameId(5));
    let issue = at(0, BlockIssue { task, device, sector: 800, size_bytes: 8_191, operation: BlockOp(1) });
    let filters = [
        "rwbs ~ '.*W.*'",
        "rwbs = W and rwbs !~ R",
        "nr_sector = 15",
        "nr_sector > 8 && bytes = 8191",
        "sector >= 800",
        "dev = sda",
        "dev ~ '^sd'",
        "device = sda",
        "block:block_rq_issue.comm = nginx",
    ];
    all_and_none(&issue, &filters, &["rwbs ~ '^R'", "nr_sector > 15", "dev = sdb", "block_rq_complete.size_bytes = 1"]);
    let reads = |line: &str| {
        EventFilter::read(line, Some(Kind::BlockIssue), |major, minor| (major == 8 && minor == 0).then(|| "sda".into()))
    };
    for line in ["dev = 8:0", "dev = 8388608", "device != 8:0 and dev = 8:0"] {
        assert_eq!(knows_of(reads(line).unwrap(), &issue), !line.contains("!="), "{line}");
    }
    assert!(reads("dev = 8:1").unwrap_err().why.contains("8:1"));
    assert!("dev = 8:0".parse::<EventFilter>().unwrap_err().why.contains("dev = sda"));
    let of_insert = BlockInsert { task, device, sector: 800, size_bytes: 8_191, operation: BlockOp(1) };
    assert!(!knows_of(reads("bytes > 0").unwrap(), &at(0, of_insert)), "it is of another tracepoint");
    let complete = |operation, status| {
        at(
            0,
            BlockComplete {
                task,
                device,
                size_bytes: 512,
                operation: BlockOp(operation),
                status,
                latency_ns: Nanos(7),
            },
        )
    };
    all_and_none(&complete(0, 10), &["error = -5", "error != 0", "rwbs = R"], &["error = 0"]);
    all_and_none(&complete(3, 0), &["error = 0", "rwbs = D", "nr_sector = 1"], &["rwbs ~ W"]);
}

#[test]
fn what_is_wrong_names_what_is_near() {
    for (filter, why) in [
        ("prev_pidd = 7", "do you mean `prev_pid`?"),
        ("sched_switch.next_com = x", "do you mean `next_comm`?"),
        ("sched_swich.next_comm = x", "do you mean `sched_switch`?"),
        ("block:sched_switch.next_comm = x", "no event is called"),
        ("event = futex_wiat", "do you mean `futex_wait`?"),
        ("filename = /bin/ls", "not recorded"),
        ("ioprio = 4", "not recorded"),
        ("rwbs = WS", "matches none of D, DE, F, N, R, W"),
        ("rwbs ~ '^FF$'", "not its flags"),
        ("vector = TIMR", "do you mean `TIMER`?"),
        ("prev_state = Q", "There are R, R+, S"),
        ("prev_pid ~ 7", "this is a number"),
        ("cpu ~ 7", "compare texts"),
        ("prev_comm < bash", "use =, !=, ~ or !~"),
        ("comm ~ '*W*'", "no regular expression"),
        ("comm ~ 'a{1000}{1000}{1000}'", "asks for too much"),
        ("comm = 'nginx", "not closed"),
        ("comm = 'nginx' or so", "behind the quotes"),
        ("cpu = 1 || cpu = 2", "there is no `||`"),
        ("(cpu = 1)", "no brackets"),
    ] {
        let error = filter.parse::<EventFilter>().unwrap_err().to_string();
        assert!(error.contains(why), "{filter}: {error}");
        assert!(!error.contains('\n'), "{filter}: {error}");
    }
    let many = vec!["cpu = 1"; 65].join(" and ");
    assert!(many.parse::<EventFilter>().unwrap_err().why.contains("more than 64"));
}

#[test]
fn all_fields_of_all_events_can_be_asked_for() {
    for kind in Kind::ALL {
        for field in kind.fields() {
            let any = ["1", "true", "x"]
                .iter()
                .any(|value| format!("{kind}.{} = {value}", field.name).parse::<EventFilter>().is_ok());
            assert!(any || field.ty == FieldType::Choice(BlockOp::NAMES), "{kind}.{}", field.name);
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(line in "\\PC{0,80}") {
        let _ = line.parse::<EventFilter>();
    }

    #[test]
    fn near_filters_are_read_or_refused(
        terms in proptest::collection::vec(
            ("(prev_pid|next_comm|rwbs|cpu|comm|vec|dev|irq\\.name|block:block_rq_issue\\.bytes|x)",
             " {0,2}(=|!=|~|!~|<|>=) {0,2}", "('[a-z,& ]{0,9}'?|\"and\"|[a-z0-9.*+(|]{0,5})"), 0..4),
        separator in "( and |&&|,|, and)",
    ) {
        let line = terms.iter().map(|(a, b, c)| format!("{a}{b}{c}")).collect::<Vec<_>>().join(&separator);
        if let Ok(mut filter) = line.parse::<EventFilter>() {
            filter.learn(&Batch::default());
            let _ = filter.accepts(&switch(TaskId(7), TaskId::idle(Cpu(1))));
        }
    }

    #[test]
    fn numbers_compare_as_numbers_do(found in 0u32..50, wanted in 0u32..50) {
        let exec = at(0, EventKind::Exec(Exec { task: TaskId(7), old_tid: found }));
        for (operator, holds) in [
            ("=", found == wanted), ("!=", found != wanted), ("<", found < wanted),
            ("<=", found <= wanted), (">", found > wanted), (">=", found >= wanted),
        ] {
            prop_assert_eq!(knows(&format!("old_pid{operator}{wanted}"), &exec), holds);
        }
    }

    #[test]
    fn what_stands_in_quotes_is_left_alone(name in "[a-zA-Z0-9&, ]{1,15}") {
        let mut filter: EventFilter = format!("next_comm = '{name}' and cpu = 1").parse().unwrap();
        let task = Task { id: TaskId(8), comm: Comm::new(&name), ..Task::idle(Cpu(0)) };
        filter.learn(&Batch { tasks: vec![task], ..Batch::default() });
        prop_assert!(filter.accepts(&switch(TaskId(7), TaskId(8))));
    }
}

#[test]
fn it_is_known_which_kinds_can_meet_it() {
    let kinds = |filter: &str| filter.parse::<EventFilter>().unwrap().kinds();
    assert_eq!(kinds("futex_wait.duration_us > 100"), [Kind::FutexWait]);
    assert_eq!(kinds("event = sched_waking and cpu = 3"), [Kind::Waking]);
    assert_eq!(kinds("sched_switch.dsq_lat_us > 1"), [Kind::ScxDispatch]);
    assert_eq!(kinds("comm = a and cpu = 3"), Kind::selectable().collect::<Vec<_>>());
    assert_eq!(kinds("event != sched_switch").len() + 2, Kind::selectable().count(), "and what counts as one");
    assert!(kinds("group = futex").iter().all(|kind| kind.group() == crate::EventGroup::Futex));
    assert!(kinds("event = futex_wait and dsq_lat_us > 1").is_empty());
    // Each event that is accepted is of one of them.
    let wait = at(3, FutexWait { task: TaskId(7), address: Address(1), duration_ns: Nanos(9_000), result: 0 });
    for filter in ["duration_us > 5", "event = futex", "group = futex", "address = 1", "cpu = 3", "pid = 77"] {
        assert!(accepts(filter, &wait) && kinds(filter).contains(&Kind::FutexWait), "{filter}");
    }
}

#[test]
fn who_was_freed_is_forgotten_even_if_that_came_late() {
    let task = Task { id: TaskId(8), comm: Comm::new("bash"), ..Task::idle(Cpu(0)) };
    let free = at(2, EventKind::Free { task: TaskId(8) });
    for (events, late) in [(vec![free], vec![]), (vec![], vec![free])] {
        let mut filter: EventFilter = "next_comm = bash".parse().unwrap();
        filter.learn(&Batch { tasks: vec![task], events, late, ..Batch::default() });
        assert!(filter.accepts(&switch(TaskId(7), TaskId(8))), "what comes late may speak of it still");
        filter.learn(&Batch::default());
        assert!(!filter.accepts(&switch(TaskId(7), TaskId(8))));
    }
}
