//! Anything that can be recorded is read back.

use super::*;

fn task_id() -> impl Strategy<Value = TaskId> {
    prop_oneof![4 => (1_u32..20).prop_map(TaskId), 1 => any::<u32>().prop_map(TaskId), 1 => (0_u16..9).prop_map(|cpu| TaskId::idle(Cpu(cpu)))]
}

fn kind() -> impl Strategy<Value = EventKind> {
    let context = prop::sample::select(vec![Context::Task, Context::Softirq, Context::Hardirq, Context::Nmi]);
    let two = || (task_id(), task_id(), any::<u16>(), any::<bool>(), any::<u8>(), any::<u8>());
    prop_oneof![
        two().prop_map(|(prev, next, state, preempted, prev_prio, next_prio)| EventKind::Switch(Switch {
            prev,
            next,
            prev_state: TaskState(state),
            preempted,
            prev_prio,
            next_prio
        })),
        (two(), context).prop_map(|((task, current, cpu, on_cpu, prio, _), context)| EventKind::Waking(Waking {
            task,
            current,
            context,
            prev_cpu: Cpu(cpu),
            on_cpu,
            prio
        })),
        two().prop_map(|(task, parent, cpu, _, prio, _)| EventKind::WakeupNew(WakeupNew {
            task,
            parent,
            target_cpu: Cpu(cpu),
            prio
        })),
        (task_id(), any::<u16>(), any::<u16>(), any::<bool>(), any::<u8>()).prop_map(
            |(task, from, to, placed, prio)| EventKind::Migrate(Migrate {
                task,
                from: Cpu(from),
                to: Cpu(to),
                placed,
                prio
            })
        ),
        (task_id(), task_id()).prop_map(|(parent, child)| EventKind::Fork(Fork { parent, child })),
        (task_id(), any::<u32>()).prop_map(|(task, old_tid)| EventKind::Exec(Exec { task, old_tid })),
        (task_id(), any::<bool>()).prop_map(|(task, group_dead)| EventKind::Exit(Exit { task, group_dead })),
        task_id().prop_map(|task| EventKind::Free { task }),
        task_id().prop_map(|task| EventKind::Rename { task }),
        (task_id(), any::<bool>()).prop_map(|(task, running)| EventKind::Snapshot(Snapshot { task, running })),
    ]
}

fn any_task() -> impl Strategy<Value = Task> {
    let ids = (prop_oneof![1_u32..20, 1_u32..1 << 31], any::<u32>(), any::<u32>(), any::<u32>());
    (ids, 0_u64..1 << 40, "[ -~]{0,20}", any::<u64>(), 0..=i64::MAX as u64, any::<bool>(), any::<bool>()).prop_map(
        |((id, tid, tgid, ppid), since, comm, cgroup, start, kernel, recorder)| Task {
            id: TaskId(id),
            since: Nanos(since),
            tid,
            tgid,
            ppid,
            comm: Comm::new(&comm),
            cgroup: CgroupId(cgroup),
            // The largest time that can be stored stands for the end of time.
            start: if start == i64::MAX as u64 { Nanos::MAX } else { Nanos(start) },
            kernel,
            recorder,
        },
    )
}

fn any_loss() -> impl Strategy<Value = Loss> {
    let place = prop_oneof![
        any::<u16>().prop_map(|shard| LossPlace::Ring(ShardId(shard))),
        any::<u16>().prop_map(|shard| LossPlace::Decode(ShardId(shard))),
        Just(LossPlace::Nested),
        Just(LossPlace::Late),
        "[a-z :]{0,9}".prop_map(|sink| LossPlace::Queue(sink.into())),
    ];
    let kind = prop::option::of(prop::sample::select(Kind::ALL.to_vec()));
    let times = (0_u64..1 << 40, 0_u64..1 << 40);
    (place, kind, 0..i64::MAX as u64, times).prop_map(|(place, kind, count, (from, until))| Loss {
        place,
        kind,
        count,
        from: Nanos(from),
        until: Nanos(until),
    })
}

/// A stream that keeps the rules: events in order, nothing before the `until` of the batch before, except what is late.
fn any_stream() -> impl Strategy<Value = Vec<Batch>> {
    let events = prop::collection::vec((0_u64..5_000, any::<u16>(), kind()), 0..60);
    let late = prop::collection::vec((any::<u32>(), any::<u16>(), kind()), 0..3);
    let tasks = prop::collection::vec(any_task(), 0..4);
    let cgroups = prop::collection::vec((any::<u64>(), "(/[a-zäλ]{0,6}){0,4}"), 0..3);
    let lost = prop::collection::vec(any_loss(), 0..2);
    let batch = (events, late, tasks, cgroups, lost, 0_u64..3_000);
    prop::collection::vec(batch, 0..12).prop_map(|batches| {
        let mut now = 1_000;
        let mut stream = Vec::new();
        for (events, late, tasks, cgroups, lost, rest) in batches {
            let mut batch = Batch { tasks, lost, ..Batch::default() };
            batch.late = late
                .into_iter()
                .map(|(back, cpu, kind)| Event { ts: Nanos(u64::from(back) % now), cpu: Cpu(cpu), kind })
                .collect();
            for (step, cpu, kind) in events {
                now += step;
                batch.events.push(Event { ts: Nanos(now), cpu: Cpu(cpu), kind });
            }
            batch.cgroups =
                cgroups.into_iter().map(|(id, path)| Cgroup { id: CgroupId(id), path: path.into() }).collect();
            now += rest;
            batch.until = Nanos(now);
            stream.push(batch);
        }
        stream
    })
}

fn options() -> impl Strategy<Value = WriterOptions> {
    (prop::sample::select(vec![4096_u64, 20_000, 32 << 20]), any::<bool>()).prop_map(|(segment_bytes, at_once)| {
        let sync_interval = if at_once { Duration::ZERO } else { Duration::MAX };
        WriterOptions { segment_bytes, sync_interval, ..WriterOptions::default() }
    })
}

/// Events of every kind that is declared with its fields, with values that these can have; names are among the first eight.
fn any_declared() -> impl Strategy<Value = Vec<EventKind>> {
    prop::collection::vec(any::<[u64; 6]>(), Kind::DECLARED.len()).prop_map(|values| {
        let event = |(kind, values): (Kind, [u64; 6])| {
            let value = |(field, value): (&FieldInfo, u64)| match field.ty {
                FieldType::Task | FieldType::Unsigned(32) => value & 0xffff_ffff,
                FieldType::Cpu | FieldType::Unsigned(16) => value & 0xffff,
                FieldType::Unsigned(8) | FieldType::Choice(_) => value & 0xff,
                FieldType::Signed => i64::from(value as i32) as u64,
                FieldType::Flag => value & 1,
                FieldType::Name => value & 7,
                _ => value,
            };
            let values: Vec<u64> = kind.fields().iter().zip(values).map(value).collect();
            EventKind::from_values(kind, &values).unwrap()
        };
        Kind::DECLARED.into_iter().zip(values).map(event).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_kind_that_is_declared_reads_back(batches in prop::collection::vec(any_declared(), 1..5), tiny in any::<bool>()) {
        let folder = scratch();
        let dir = folder.path().join("t");
        let batch = |(n, kinds): (u64, Vec<EventKind>)| {
            let at = |step: u64| Nanos(1_000 + n * 1_000 + step);
            let event = |(step, kind)| Event { ts: at(step), cpu: Cpu(step as u16), kind };
            // Later segments have to know them as well. One of them has no text of its own.
            let names = if n == 0 { 1..8 } else { 0..0 };
            let name = |id: u32| Name::new(NameId(id), at(0), format!("name-{}", id / 2).as_bytes());
            Batch {
                until: at(1_000),
                events: (0..).zip(kinds).map(event).collect(),
                names: names.map(name).collect(),
                ..Batch::default()
            }
        };
        let batches: Vec<Batch> = (0..).zip(batches).map(batch).collect();
        let options = WriterOptions { segment_bytes: if tiny { 4096 } else { 32 << 20 }, ..WriterOptions::default() };
        let meta = meta_with(&Kind::DECLARED);
        let mut writer = TraceWriter::create(&dir, options).unwrap();
        writer.begin(&meta).unwrap();
        batches.iter().for_each(|batch| writer.batch(batch).unwrap());
        writer.finish(&meta).unwrap();
        prop_assert_eq!(content(&read(&dir).unwrap()), content(&batches));
    }
}

#[test]
fn events_of_which_the_setting_says_nothing_are_refused_and_not_dropped() {
    let folder = scratch();
    let dir = folder.path().join("t");
    let mut writer = TraceWriter::create(&dir, WriterOptions::default()).unwrap();
    writer.begin(&meta_with(&[])).unwrap();
    let event = Event { ts: Nanos(2_000), cpu: Cpu(0), kind: Hang { task: TaskId(1) }.into() };
    let written = writer.batch(&Batch { until: Nanos(3_000), events: vec![event], ..Batch::default() });
    let error = written.and_then(|()| writer.finish(&meta_with(&[]))).unwrap_err().to_string();
    assert!(error.contains("sched_process_hang") && error.contains("probes"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_finished_reads_back(batches in any_stream(), options in options()) {
        let folder = scratch();
        let dir = folder.path().join("t");
        let writer = write(&dir, options, &batches);
        let read = read(&dir).unwrap();
        prop_assert_eq!(content(&read), content(&batches));

        let events: usize = batches.iter().map(|batch| batch.events.len() + batch.late.len()).sum();
        let info = TraceReader::open(&dir).unwrap().info().unwrap();
        prop_assert_eq!(info.completeness.events, events as u64);
        prop_assert_eq!(writer.rows(), events as u64);
        prop_assert_eq!(info.bytes, size(&dir));
        prop_assert_eq!(writer.bytes(), size(&dir));
        let until = batches.last().map_or(Nanos(1_000), |batch| batch.until);
        prop_assert_eq!(info.window.until_ns, until);
        prop_assert_eq!(read.last().map_or(Nanos(1_000), |batch| batch.until), until);
    }

    #[test]
    fn what_is_in_flight_reads_the_same_as_what_is_finished(batches in any_stream()) {
        let folder = scratch();
        let dir = folder.path().join("t");
        let mut writer = record(&dir, tiny(), &batches);
        let in_flight = read(&dir).unwrap();
        prop_assert_eq!(content(&in_flight), content(&batches));
        writer.finish(&meta()).unwrap();
        prop_assert_eq!(content(&read(&dir).unwrap()), content(&in_flight));
    }

    /// Whatever a batch announces is there when its events are read, in any batches.
    #[test]
    fn identities_come_before_the_events_they_hold_for(batches in any_stream(), options in options()) {
        let folder = scratch();
        let dir = folder.path().join("t");
        write(&dir, options, &batches);
        let read = read(&dir).unwrap();
        // Where each announcement comes first, and each event on time.
        let task_at = |task: &Task| read.iter().position(|batch| batch.tasks.contains(task)).unwrap();
        for batch in &batches {
            for event in &batch.events {
                let at = read.iter().position(|batch| batch.events.contains(event)).unwrap();
                prop_assert!(batch.tasks.iter().all(|task| task_at(task) <= at));
            }
        }
        // What a task was called last, it is called last.
        for batch in &batches {
            for task in &batch.tasks {
                let last = |batches: &[Batch]| batches.iter().flat_map(|b| &b.tasks).rfind(|t| t.id == task.id).copied();
                let lives_once = batches.iter().flat_map(|b| b.events.iter().chain(&b.late)).all(|event| match event.kind {
                    EventKind::Switch(e) => !(e.prev_ends() && e.prev == task.id),
                    EventKind::Free { task: freed } => freed != task.id,
                    _ => true,
                });
                let tid_is_its_own = batches.iter().flat_map(|b| &b.tasks).all(|t| t.id == task.id || t.tid != task.tid);
                if lives_once && tid_is_its_own {
                    prop_assert_eq!(last(&read), last(&batches));
                }
            }
        }
    }
}

#[test]
fn long_batches_are_cut_and_short_ones_joined() {
    let folder = scratch();
    let dir = folder.path().join("t");
    let batches = stream(3, 30_000);
    write(&dir, WriterOptions::default(), &batches);
    let read = read(&dir).unwrap();
    assert_eq!(content(&read), content(&batches));
    let times: Vec<Nanos> = read.iter().flat_map(|batch| &batch.events).map(|event| event.ts).collect();
    assert_eq!(times.len(), 3 * (30_000 + DECLARED.len()));
    assert!(times.is_sorted());
    assert!(read.len() >= 11 && read.len() <= 24, "{} batches", read.len());
}

#[test]
fn late_events_are_sorted_into_their_place_at_rest() {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

    let folder = scratch();
    let dir = folder.path().join("t");
    let mut batches = stream(4, 9_000);
    // The first batch's times, three batches later.
    batches[3].late = vec![switch(10_500, 7, TaskId(1), TaskId(2)), switch(10_400, 7, TaskId(1), TaskId(2))];
    write(&dir, WriterOptions::default(), &batches);
    let read = read(&dir).unwrap();
    assert!(read.iter().all(|batch| batch.late.is_empty()));
    assert_eq!(content(&read), content(&batches));
    let info = TraceReader::open(&dir).unwrap().info().unwrap();
    assert_eq!(info.completeness.late, 2);
    assert!(info.completeness.complete, "late is not lost");

    let file = std::fs::File::open(dir.join("events/sched_switch/00000000.parquet")).unwrap();
    let rows = ParquetRecordBatchReader::try_new(file, 1024).unwrap();
    let times = rows.flat_map(|batch| batch.unwrap().column(0).as_primitive::<Int64Type>().values().to_vec());
    let times: Vec<i64> = times.collect();
    assert_eq!(times.len(), 36_002);
    assert!(times.is_sorted());
}

/// A batch of the reader may end anywhere in a batch of the recorder.
#[test]
fn identities_come_in_time_wherever_batches_are_cut() {
    let folder = scratch();
    for size in 8_187..=8_195 {
        let dir = folder.path().join(size.to_string());
        write(&dir, WriterOptions::default(), &stream(3, size));
        let read = read(&dir).unwrap();
        assert!(read.len() > 2);
        assert_self_contained(&read);
        // And no earlier than they need to.
        assert!(read[0].tasks.len() < 3);
    }
}

/// What the writer makes of the longest texts keeps within what the reader takes.
#[test]
fn the_longest_paths_are_read_back() {
    let folder = scratch();
    let dir = folder.path().join("t");
    let path = |id| format!("/{id:0>4095}").into();
    let cgroups = (0..20_000).map(|id| Cgroup { id: CgroupId(id), path: path(id) }).collect();
    let batches = [Batch { until: Nanos(2_000), cgroups, ..Batch::default() }];
    let options = WriterOptions { segment_bytes: 256 << 20, ..WriterOptions::default() };
    write(&dir, options, &batches);
    assert_eq!(content(&read(&dir).unwrap()), content(&batches));
}

#[test]
fn names_are_stored_as_they_are_shown() {
    let folder = scratch();
    let dir = folder.path().join("t");
    let mut odd = task(1, 1_500, "");
    odd.comm = Comm::from_bytes(*b"a\x1b[31m\xff\x07b\0\0\0\0\0\0\0");
    let batches = [Batch { until: Nanos(2_000), tasks: vec![odd], ..Batch::default() }];
    write(&dir, WriterOptions::default(), &batches);
    let read = read(&dir).unwrap();
    assert_eq!(read[0].tasks[0].comm.to_string(), odd.comm.to_string());
    assert!(read[0].tasks[0].comm.as_bytes().iter().all(|byte| *byte >= b' '));
}

#[test]
fn tables_are_given_as_they_lie_in_the_files() {
    let folder = scratch();
    let dir = folder.path().join("t");
    let options = WriterOptions { sync_interval: Duration::ZERO, ..tiny() };
    let mut writer = record(&dir, options, &stream(20, 100));
    let assert_tables = || {
        let reader = TraceReader::open(&dir).unwrap();
        for told in reader.info().unwrap().tables {
            let table = reader.table(&told.name).unwrap();
            let schema = table.schema();
            let batches: Vec<_> = table.map(Result::unwrap).collect();
            assert!(batches.iter().all(|batch| batch.schema() == schema), "{}", told.name);
            assert_eq!(batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>(), told.rows, "{}", told.name);
        }
        let error = reader.table("nonsense").unwrap_err().to_string();
        assert!(error.contains("`nonsense`") && error.contains("sched_switch"), "{error}");
    };
    // In flight and at rest.
    assert_tables();
    writer.finish(&meta()).unwrap();
    assert_tables();
    // The first error ends it.
    let table = dir.join("events/sched_switch");
    let file = files(&table).pop().unwrap();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let mut rows = TraceReader::open(&dir).unwrap().table("sched_switch").unwrap();
    assert!(rows.by_ref().any(|batch| batch.is_err()));
    assert!(rows.next().is_none());
}
