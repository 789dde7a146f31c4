//! What `schedtrace explain --json` answers.

use std::slice::Iter;

use serde_json::Value;

use crate::common::recording::{Recording, number};

/// An explanation of a thread's window.
#[derive(Debug)]
pub struct Answer {
    pub all: Value,
    /// The same as a user reads it.
    pub text: String,
}

/// A thread, as an answer names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub tid: u32,
    pub pid: u32,
}

impl Named {
    /// Whether it is meant.
    pub fn is(&self, who: &Value) -> bool {
        who["tid"] == self.tid && who["pid"] == self.pid && who["comm"] == self.name.as_str()
    }
}

/// The steps below a step.
pub fn below(step: &Value) -> Iter<'_, Value> {
    step["steps"].as_array().unwrap().iter()
}

/// Whether a step has one of these mechanisms.
pub fn is_one_of(step: &Value, mechanisms: &[&str]) -> bool {
    mechanisms.iter().any(|mechanism| step["mechanism"] == *mechanism)
}

/// Waits for a CPU.
pub const WAITS: [&str; 2] = ["run_queue", "preempted"];

impl Answer {
    /// Asks for a thread's window, or for the whole recording, and checks what every answer has to be.
    pub fn new(recording: &Recording, tid: u32, window: Option<(u64, u64)>) -> Self {
        let (tid, bounds) = (tid.to_string(), window.map(|(from, to)| [format!("{from}ns"), format!("{to}ns")]));
        let mut asked = vec!["--tid", &tid];
        if let Some([from, to]) = &bounds {
            asked.extend(["--from", from, "--to", to]);
        }
        let answer = Self { all: recording.json("explain", &asked), text: recording.text("explain", &asked) };
        let of = &answer.all["window"];
        let bounds = (number(&of["from_ns"]), number(&of["until_ns"]));
        window.into_iter().for_each(|window| assert_eq!(bounds, window, "{of}"));
        // They make up the window, and what is below a step makes up that one.
        assert_eq!(sum(answer.steps()), bounds.1 - bounds.0, "{}", answer.text);
        answer.steps().for_each(complete);
        answer
    }

    pub fn steps(&self) -> Iter<'_, Value> {
        below(&self.all)
    }

    /// How much time the steps on the first level have that are of these mechanisms.
    pub fn ns(&self, mechanisms: &[&str]) -> u64 {
        sum(self.steps().filter(|step| is_one_of(step, mechanisms)))
    }

    /// The mechanism is one of these, and it was the doing of that thread, or of nobody.
    pub fn verdict(&self, mechanisms: &[&str], culprit: Option<&Named>) -> Result<(), String> {
        let who = &self.all["contention_source"]["task"];
        let is_who = culprit.map_or_else(|| who.is_null(), |culprit| culprit.is(who));
        hold(is_one_of(&self.all, mechanisms), &format!("the mechanism is {}", self.all["mechanism"]))?;
        hold(is_who, &format!("it was the doing of {who} and not of {culprit:?}"))
    }

    /// What is to be done concerns this thread: it was runnable.
    pub fn advises(&self, whom: &Named) -> Result<(), String> {
        let advice = &self.all["recommendation"];
        let name = format!("{}[{}]", whom.name, whom.tid);
        let names = |part: &str| advice[part].as_str().unwrap().contains(&name);
        hold(names("action") && names("reason"), &format!("it is {name} that was runnable: {advice}"))
    }

    /// What is not explained is 5 % at most.
    pub fn explained(&self) -> Result<(), String> {
        let ratio = self.all["unexplained_ratio"].as_f64().unwrap();
        hold(ratio <= 0.05, &format!("{ratio} of the window is not explained"))
    }
}

/// A step has its own time, and what is below it makes up all of that.
fn complete(step: &Value) {
    assert!(number(&step["longest_ns"]) <= number(&step["total_ns"]), "{step}");
    let mut of_all = below(step).peekable();
    if of_all.peek().is_some() {
        assert_eq!(sum(of_all), number(&step["total_ns"]), "{step}");
    }
    below(step).for_each(complete);
}

/// The time of some steps together.
pub fn sum<'a>(steps: impl Iterator<Item = &'a Value>) -> u64 {
    steps.map(|step| number(&step["total_ns"])).sum()
}

pub fn hold(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}
