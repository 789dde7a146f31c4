//! The table of truth: what schedtrace says, what the kernel says, and the difference. Every row that is printed is
//! also checked.

use std::fmt::Write;

/// How far two figures may be apart.
#[derive(Clone, Copy, Debug)]
pub enum Allowed {
    /// Not at all.
    Nothing,
    /// By 1 % of theirs, and by so many nanoseconds for what the two define differently.
    Percent { and_ns: u64 },
}

#[derive(Clone, Debug)]
struct Row {
    thread: String,
    source: String,
    ours: u64,
    theirs: u64,
    allowed: Allowed,
}

impl Row {
    fn holds(&self) -> bool {
        let difference = self.ours.abs_diff(self.theirs);
        match self.allowed {
            Allowed::Nothing => difference == 0,
            Allowed::Percent { and_ns } => difference <= self.theirs / 100 + and_ns,
        }
    }

    fn text(&self) -> String {
        let difference = self.ours as i128 - self.theirs as i128;
        let percent = match self.theirs {
            0 => "-".to_owned(),
            theirs => format!("{:+.3} %", difference as f64 * 100.0 / theirs as f64),
        };
        let allowed = match self.allowed {
            Allowed::Nothing => "exact".to_owned(),
            Allowed::Percent { and_ns: 0 } => "1 %".to_owned(),
            Allowed::Percent { and_ns } => format!("1 % + {}", grouped(and_ns.into())),
        };
        let (ours, theirs) = (grouped(self.ours.into()), grouped(self.theirs.into()));
        let verdict = if self.holds() { "ok" } else { "WRONG" };
        format!(
            "  {:<17} {:<36} {ours:>15} {theirs:>15} {:>12} {percent:>10}  {allowed:<15} {verdict}",
            self.thread,
            self.source,
            grouped(difference),
        )
    }
}

/// `1234567` as `1,234,567`.
fn grouped(n: i128) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut text = String::from(if n < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One workload's rows.
#[derive(Clone, Debug)]
pub struct Table {
    title: String,
    rows: Vec<Row>,
    notes: Vec<String>,
    lacks: Option<&'static str>,
}

impl Table {
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), rows: vec![], notes: vec![], lacks: None }
    }

    /// Adds a line that stands below the rows.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// What was to be seen did not happen, so that this proves nothing.
    pub fn lacks(&mut self, what: &'static str) {
        self.lacks = Some(what);
    }

    pub fn lacking(&self) -> Option<&'static str> {
        self.lacks
    }

    /// Two counts that must be the same.
    pub fn count(&mut self, thread: &str, source: impl Into<String>, ours: u64, theirs: u64) {
        self.row(thread, source.into(), ours, theirs, Allowed::Nothing);
    }

    /// Two times in nanoseconds that must be within 1 %, and so many nanoseconds.
    pub fn time(&mut self, thread: &str, source: impl Into<String>, ours: u64, theirs: u64, and_ns: u64) {
        self.row(thread, source.into(), ours, theirs, Allowed::Percent { and_ns });
    }

    /// Allows all times to be apart by so much more.
    pub fn allow(&mut self, ns: u64) {
        for row in &mut self.rows {
            if let Allowed::Percent { and_ns } = &mut row.allowed {
                *and_ns += ns;
            }
        }
    }

    fn row(&mut self, thread: &str, source: String, ours: u64, theirs: u64, allowed: Allowed) {
        self.rows.push(Row { thread: thread.to_owned(), source, ours, theirs, allowed });
    }

    /// Takes over the sums of another table's rows, source by source, and what counts in it differ.
    pub fn summed(&mut self, name: &str, of: &Self) {
        let mut sums: Vec<Row> = Vec::new();
        for row in &of.rows {
            if matches!(row.allowed, Allowed::Nothing) && !row.holds() {
                self.rows.push(row.clone());
            }
            let Some(sum) = sums.iter_mut().find(|sum| sum.source == row.source) else {
                sums.push(Row { thread: name.to_owned(), ..row.clone() });
                continue;
            };
            sum.ours += row.ours;
            sum.theirs += row.theirs;
            if let (Allowed::Percent { and_ns }, Allowed::Percent { and_ns: more }) = (&mut sum.allowed, row.allowed) {
                *and_ns += more;
            }
        }
        self.note(format!("{name}: sums; the counts of each were compared by themselves, too"));
        self.rows.extend(sums);
    }

    /// Whether every count is the same.
    pub fn counts_hold(&self) -> bool {
        self.rows.iter().all(|row| matches!(row.allowed, Allowed::Percent { .. }) || row.holds())
    }

    /// The rows with times that are too far away.
    pub fn wrong_times(&self) -> Vec<String> {
        let wrong = self.rows.iter().filter(|row| matches!(row.allowed, Allowed::Percent { .. }) && !row.holds());
        wrong.map(Row::text).collect()
    }

    /// Prints the rows, and fails if one does not hold.
    pub fn check(&self) {
        let mut text = format!("\ntruth: {}\n", self.title);
        let _ = writeln!(
            text,
            "  {:<17} {:<36} {:>15} {:>15} {:>12} {:>10}  {:<15}",
            "thread", "source", "ours", "theirs", "difference", "%", "allowed"
        );
        for row in &self.rows {
            let _ = writeln!(text, "{}", row.text());
        }
        for note in &self.notes {
            let _ = writeln!(text, "  {note}");
        }
        print!("{text}");
        assert!(!self.rows.is_empty(), "nothing was compared");
        let wrong: Vec<String> = self.rows.iter().filter(|row| !row.holds()).map(Row::text).collect();
        assert!(wrong.is_empty(), "{}:\n{}", self.title, wrong.join("\n"));
    }
}
