use std::sync::Arc;

use rmcp::model::JsonObject;
use schedtrace_core::synthetic::SyntheticHost;
use schedtrace_core::{
    Batch, Comm, Cpu, Event, EventKind, Kind, Loss, LossPlace, Nanos, OnFull, Pipeline, Sink, Switch, Task, TaskId,
    TaskState,
};
use serde_json::{Value, json};

use super::*;
use crate::state::State;
use crate::{Settings, resources};

fn wanted(query: Value) -> Result<(Wanted, Page), String> {
    let query: JsonObject = query.as_object().cloned().unwrap();
    Wanted::read(query)
}

fn join(streams: &Streams, query: Value) -> Arc<Feed> {
    streams.join(&wanted(query).unwrap().0).unwrap()
}

fn page(limit: usize, after: Option<u64>) -> Page {
    Page { limit, roomy: false, after }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn task(id: u32, comm: &str) -> Task {
    Task { id: TaskId(id), tid: 10 + id, tgid: 10 + id, comm: Comm::new(comm), ..Task::idle(Cpu(0)) }
}

/// On CPU 3, a task leaves for another, so many times.
fn switches(from: u64, n: u64) -> Batch {
    let (prev, next) = (TaskId(1), TaskId(2));
    let kind = Switch { prev, next, prev_state: TaskState::RUNNING, preempted: true, prev_prio: 120, next_prio: 100 };
    let event = |at| Event { ts: Nanos(at), cpu: Cpu(3), kind: EventKind::Switch(kind) };
    Batch {
        until: Nanos(from + n),
        events: (from..from + n).map(event).collect(),
        tasks: vec![task(1, "victim"), task(2, "hog\u{1b}[2J")],
        ..Batch::default()
    }
}

#[test]
fn a_query_says_what_is_wanted() {
    for query in [
        json!({ "kind": "sched_switch, irq", "task": "nginx", "pid": 7, "cgroup": "a/b", "cpu": 3 }),
        json!({ "where": "dsq_lat_us > 1000", "limit": 10, "after": 5 }),
        json!({ "task": 4242 }),
    ] {
        assert!(wanted(query.clone()).is_ok(), "{query}");
    }
    for (query, told) in [
        (json!({ "colour": 1 }), "colour"),
        (json!({ "kind": "dream" }), "dream"),
        (json!({ "kind": "," }), "no event is named"),
        (json!({ "where": "length > 3" }), "no event there has a field `length`"),
        (json!({ "limit": 0 }), "use 1 to 2000"),
        (json!({ "limit": 2_001 }), "use 1 to 2000"),
        (json!({ "cpu": "all" }), "cpu"),
        (json!({ "pid": 1_u64 << 40 }), "pid"),
        (json!({ "kind": "futex", "where": "dsq_lat_us > 1000" }), "no event is both"),
        (json!({ "where": "event = sched_switch and event = sched_fork" }), "no event is both"),
    ] {
        let why = wanted(query.clone()).unwrap_err();
        assert!(why.contains(told) && why.contains("it takes kind, task"), "{query}: {why}");
    }
    let kinds = |query| wanted(query).unwrap().0.kinds();
    assert_eq!(kinds(json!({ "where": "dsq_lat_us > 1000" })), Some(vec![Kind::ScxDispatch]));
    assert_eq!(kinds(json!({ "cpu": 3, "where": "comm = a" })), None, "it does not depend on the kind");
    assert_eq!(
        kinds(json!({ "kind": "scx_dispatch, futex", "where": "dsq_lat_us > 1000" })),
        Some(vec![Kind::ScxDispatch])
    );
}

#[test]
fn an_address_says_what_is_wanted_as_well() {
    let state = State::new(Settings { collect: true, ..Settings::default() });
    let at = |uri: &str| Wanted::read(resources::find(&state, uri).unwrap().1).unwrap();
    for (uri, query) in [
        ("events://stream?task=4711", json!({ "task": 4711 })),
        ("events://stream?task=kworker%2f0:1&cpu=3", json!({ "task": "kworker/0:1", "cpu": 3 })),
        ("events://stream?pid=7&where=dsq_lat_us+>+1000", json!({ "pid": 7, "where": "dsq_lat_us > 1000" })),
    ] {
        assert_eq!(at(uri).0, wanted(query).unwrap().0, "{uri}");
    }
    let streams = Arc::<Streams>::default();
    let mut hub = Hub::new(&streams, "live", true);
    let feeds = ["11", "12", "13", "4711", "victim"].map(|task| {
        let (wanted, _) = at(&format!("events://stream?task={task}"));
        streams.join(&wanted).unwrap()
    });
    hub.batch(&switches(0, 3)).unwrap();
    assert_eq!(feeds.map(|feed| feed.tally().events), [3, 3, 0, 0, 3]);
}

#[test]
fn what_has_not_come_yet_cannot_be_read_already() {
    let streams = Arc::<Streams>::default();
    let mut hub = Hub::new(&streams, "live", true);
    let feed = join(&streams, json!({}));
    let early = lines(&feed.page(page(10, Some(u64::MAX))));
    assert_eq!(early[0]["seq"], 0);
    hub.batch(&switches(0, 3)).unwrap();
    let beyond = lines(&feed.page(page(10, Some(u64::MAX))));
    assert_eq!((beyond.len(), &beyond[0]["seq"]), (1, &json!(3)), "there is none behind the newest");
    hub.batch(&switches(10, 2)).unwrap();
    let numbers: Vec<_> = lines(&feed.page(page(10, None))).iter().map(|line| line["seq"].as_u64()).collect();
    assert_eq!(numbers, [Some(4), Some(5), Some(5)]);
    feed.page(page(1, Some(u64::MAX)));
    hub.batch(&switches(20, QUEUE as u64 + 9)).unwrap();
    assert_eq!(feed.tally().lost, 9, "and what it loses is counted");
    assert_eq!(lines(&feed.page(page(1, None)))[0]["count"], 9);
}

#[test]
fn what_is_new_is_read_once_and_what_was_read_can_be_read_again() {
    let streams = Arc::<Streams>::default();
    let mut hub = Hub::new(&streams, "live", true);
    let feed = join(&streams, json!({}));
    let news = feed.news();
    assert!(!news.has_changed().unwrap());
    hub.batch(&switches(1_000, 5)).unwrap();
    assert!(news.has_changed().unwrap());
    let first = lines(&feed.page(page(3, None)));
    let numbers: Vec<_> = first.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 3]);
    assert_eq!((&first[3]["event"], &first[3]["left"]), (&json!("page_end"), &json!(2)));
    let hog = json!({ "tid": 12, "pid": 12, "comm": "hog?[2J" });
    assert_eq!((&first[0]["task"], &first[0]["prev"]["comm"]), (&hog, &json!("victim")));
    assert_eq!(
        (&first[0]["prev_state"], &first[0]["next_prio"], &first[0]["cpu"]),
        (&json!("R"), &json!(100), &json!(3))
    );
    assert_eq!(lines(&feed.page(page(10, None))).len(), 3, "two are left, and the end of the page");
    assert_eq!(lines(&feed.page(page(10, None))).len(), 1);
    assert_eq!(lines(&feed.page(page(10, Some(1)))).len(), 5, "an answer that got lost can be asked for again");
    drop(hub);
    let end = lines(&feed.page(page(10, None)));
    assert_eq!((&end[0]["ended"], &end[0]["collection"]), (&json!("live"), &Value::Null));
}

#[test]
fn whoever_reads_too_slowly_is_told_what_was_lost() {
    let streams = Arc::<Streams>::default();
    let mut hub = Hub::new(&streams, "live", true);
    let (slow, fast) = (join(&streams, json!({})), join(&streams, json!({ "kind": "sched_switch" })));
    let n = QUEUE as u64 + 700;
    for part in 0..n / 100 {
        hub.batch(&switches(part * 100, 100)).unwrap();
        while lines(&fast.page(page(200, None))).last().unwrap()["left"] != 0 {}
    }
    assert_eq!(slow.tally(), feed::Tally { events: n, lost: 700 });
    assert_eq!(fast.tally(), feed::Tally { events: n, lost: 0 }, "nobody waits for the slow one");
    let read = lines(&slow.page(page(10, None)));
    assert_eq!(read[0], json!({ "event": "lost", "place": "stream", "kind": null, "count": 700 }));
    assert_eq!(read[1]["seq"], 701, "the oldest went");
    assert_eq!((&read[11]["lost"], &read[11]["left"]), (&json!(700), &json!(QUEUE - 10)));
    assert_ne!(lines(&slow.page(page(10, None)))[0]["event"], "lost", "it is told once");
}

#[test]
fn losses_on_the_way_are_told_to_whom_they_concern() {
    let streams = Arc::<Streams>::default();
    let mut hub = Hub::new(&streams, "live", true);
    let (switches, forks) =
        (join(&streams, json!({ "kind": "sched_switch" })), join(&streams, json!({ "kind": "sched_fork" })));
    let loss = |place, kind, count| Loss { place, kind, count, from: Nanos(0), until: Nanos(9) };
    let ring = LossPlace::Ring(schedtrace_core::ShardId(0));
    let lost = vec![
        loss(ring.clone(), Some(Kind::Switch), 3),
        loss(ring, Some(Kind::Switch), 4),
        loss(LossPlace::Late, Some(Kind::Switch), 5),
        loss(LossPlace::Queue("stream".into()), Some(Kind::Switch), 6),
    ];
    hub.batch(&Batch { lost, ..Batch::default() }).unwrap();
    let told = lines(&switches.page(page(10, None)));
    let told: Vec<_> = told.iter().map(|line| (line["place"].as_str(), line["count"].as_u64())).collect();
    assert_eq!(told, [(Some("ring:0"), Some(7)), (Some("queue:stream"), Some(6)), (None, None)]);
    assert_eq!(lines(&forks.page(page(10, None))).len(), 1);
}

#[test]
fn a_page_keeps_within_its_bytes() {
    let streams = Arc::<Streams>::default();
    let mut hub = Hub::new(&streams, "live", true);
    let feed = join(&streams, json!({}));
    hub.batch(&switches(0, 1_000)).unwrap();
    let text = feed.page(page(200, None));
    assert!(text.len() <= crate::answer::BUDGET, "{}", text.len());
    let text = feed.page(Page { limit: 900, roomy: true, after: None });
    assert!((crate::answer::BUDGET..=crate::answer::ROOMY).contains(&text.len()), "{}", text.len());
}

#[test]
fn a_simulated_machine_is_streamed_as_it_was() {
    let streams = Arc::<Streams>::default();
    let mut hub = Hub::new(&streams, "live", true);
    let (all, some) = (join(&streams, json!({})), join(&streams, json!({ "cpu": 1, "where": "event = sched_switch" })));
    let mut host = SyntheticHost::new().cpus(4).llcs(2).events(5_000).start();
    let (mut events, mut on_one) = (0, 0);
    let mut count = |batch: &Batch| {
        let of = batch.events.iter().chain(&batch.late);
        let of = of.filter(|event| !matches!(event.kind, EventKind::Snapshot(_)));
        for event in of {
            events += 1;
            on_one += u64::from(event.cpu == Cpu(1) && event.kind.kind() == Kind::Switch);
        }
    };
    let pipeline = Pipeline::new().sink("stream", OnFull::Block, &mut hub).sink("count", OnFull::Block, &mut count);
    pipeline.run(&mut host).unwrap().into_result().unwrap();
    assert_eq!(all.tally().events, events);
    assert_eq!(some.tally().events, on_one);
    assert!(on_one > 100, "{on_one}");
    let read = lines(&some.page(page(100, None)));
    for line in &read[..read.len() - 1] {
        assert_eq!((&line["cpu"], &line["event"]), (&json!(1), &json!("sched_switch")), "{line}");
        assert!(line["task"]["comm"].is_string(), "it is known who it is: {line}");
    }
}

#[test]
fn whoever_comes_later_knows_who_everybody_is() {
    let streams = Arc::<Streams>::default();
    let mut hub = Hub::new(&streams, "rec-1", false);
    hub.batch(&switches(0, 3)).unwrap();
    let later = join(&streams, json!({ "task": "victim", "where": "comm = victim" }));
    hub.batch(&Batch { tasks: Vec::new(), ..switches(10, 2) }).unwrap();
    assert_eq!(later.tally().events, 2);

    let not_subscribed = wanted(json!({ "cpu": 3 })).unwrap().0;
    let last = lines(&streams.read(&not_subscribed, page(4, None)).unwrap());
    assert_eq!(last.iter().map(|line| line["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3, 4, 5, 5]);
    assert_eq!(last[4]["subscribed"], false);
    assert_eq!(lines(&streams.read(&not_subscribed, page(4, Some(4))).unwrap()).len(), 2);

    // The collection takes over from a recording; its ids are others.
    let mut live = Hub::new(&streams, "live", true);
    live.batch(&Batch { tasks: vec![task(1, "other"), task(2, "victim")], ..switches(20, 1) }).unwrap();
    hub.batch(&switches(30, 1)).unwrap();
    assert_eq!(later.tally().events, 3, "one of both serves");
    drop(live);
    hub.batch(&switches(40, 1)).unwrap();
    let read = lines(&later.page(page(10, None)));
    assert_eq!(later.tally().events, 4);
    assert_eq!(read.last().unwrap()["collection"], "rec-1");
    drop(hub);
    let nothing = lines(&streams.read(&not_subscribed, page(4, None)).unwrap());
    assert!(nothing[0]["hint"].as_str().unwrap().contains("nothing is being collected"), "{nothing:?}");
}

#[test]
fn a_new_name_holds_from_when_it_was_given() {
    let streams = Arc::<Streams>::default();
    let mut hub = Hub::new(&streams, "live", true);
    let feed = join(&streams, json!({}));
    hub.batch(&switches(0, 1)).unwrap();
    let renamed = Task { since: Nanos(12), ..task(1, "renamed") };
    hub.batch(&Batch { tasks: vec![renamed], ..switches(10, 5) }).unwrap();
    let read = lines(&feed.page(page(10, None)));
    let names: Vec<_> = read.iter().filter_map(|line| line["prev"]["comm"].as_str()).collect();
    assert_eq!(names, ["victim", "victim", "victim", "renamed", "renamed", "renamed"]);
}

#[test]
fn a_cgroup_is_it_and_all_below() {
    use schedtrace_core::{Cgroup, CgroupId};
    let streams = Arc::<Streams>::default();
    let mut hub = Hub::new(&streams, "live", true);
    let of = |path: &str| join(&streams, json!({ "cgroup": path }));
    let feeds = [of("/a"), of("a/b/"), of("/sys/fs/cgroup/a/b/c"), of("/a/bc"), of("/")];
    let cgroup = |id, path: &str| Cgroup { id: CgroupId(id), path: path.into() };
    let cgroups = vec![cgroup(1, "/a"), cgroup(2, "/a/b"), cgroup(3, "/a/b/c"), cgroup(4, "/a/bc")];
    let within = |id, comm, cgroup| Task { cgroup: CgroupId(cgroup), ..task(id, comm) };
    let tasks = vec![within(1, "x", 2), within(2, "y", 2)];
    hub.batch(&Batch { cgroups, tasks, ..switches(0, 1) }).unwrap();
    assert_eq!(feeds.map(|feed| feed.tally().events), [1, 1, 0, 0, 1]);
}

#[test]
fn streams_are_shared_as_long_as_somebody_uses_them() {
    let streams = Arc::<Streams>::default();
    let feeds: Vec<_> = (0..3).map(|cpu| join(&streams, json!({ "cpu": cpu }))).collect();
    let same = join(&streams, json!({ "cpu": 0 }));
    assert!(Arc::ptr_eq(&same, &feeds[0]));
    assert!(!streams.leave(&same));
    assert!(streams.find(&same.wanted).is_some(), "another one uses it still");
    let last = feeds.iter().map(|feed| streams.leave(feed)).filter(|last| *last).count();
    assert_eq!(last, 1);
    assert!(streams.find(&same.wanted).is_none());
}
