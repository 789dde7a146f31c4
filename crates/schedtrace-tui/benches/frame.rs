//! A frame of a machine with 512 CPUs and 10,000 tasks, on a terminal of 300 by 80.
#![allow(clippy::expect_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent};
use schedtrace_core::synthetic::SyntheticHost;
use schedtrace_core::trace::{TraceWriter, WriterOptions};
use schedtrace_core::{OnFull, Pipeline};
use schedtrace_tui::{App, Origin, Settings};

fn recorded(path: &Path) -> Origin {
    let mut writer = TraceWriter::create(path, WriterOptions::default()).expect("a folder");
    let host = SyntheticHost::new().cpus(512).llcs(64).nodes(8).tasks(10_000).events(500_000).skew(true);
    let run = Pipeline::new().sink("trace", OnFull::Block, &mut writer).run(&mut host.start());
    run.and_then(schedtrace_core::Summary::into_result).expect("a trace");
    Origin::trace(path).expect("the trace")
}

fn frames(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("large.schedtrace");
    drop(recorded(&path));
    let mut group = c.benchmark_group("frame of 512 CPUs and 10,000 tasks");
    for (name, key) in [("overview", '1'), ("tasks", '2'), ("timeline", '4'), ("latency", '5'), ("events", 'E')] {
        let mut app = App::new(Origin::trace(&path).expect("the trace"), Settings::default()).expect("threads");
        let mut terminal = Terminal::new(TestBackend::new(300, 80)).expect("no terminal can fail less");
        let press = |app: &mut App, code: KeyCode| assert!(app.event(&Event::Key(KeyEvent::from(code))).is_continue());
        press(&mut app, KeyCode::Char(key));
        terminal.draw(|frame| app.draw(frame)).expect("drawn");
        app.settle(Duration::from_secs(120)).expect("an answer");
        group.bench_function(format!("{name}, drawn"), |b| {
            b.iter(|| terminal.draw(|frame| app.draw(frame)).map(|frame| black_box(frame.area)));
        });
        // What a key changes: the next row, and the frame with it.
        group.bench_function(format!("{name}, a key and drawn"), |b| {
            b.iter(|| {
                press(&mut app, KeyCode::Down);
                terminal.draw(|frame| app.draw(frame)).map(|frame| black_box(frame.area))
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = frame;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = frames
}
criterion_main!(frame);
