//! What the machine says beside events: asked as long as a view shows it.

use std::time::Instant;

use super::App;
use crate::machine::{Asked, Machine, Sampler};

impl App {
    /// What the machine is asked for what is shown.
    fn asked_of_machine(&self) -> Asked {
        let shown = &self.views[self.at];
        Asked { parts: shown.view.machine(), of: shown.place.of }
    }

    /// Tells the sampler what is looked at, and takes what it read; whether there was something.
    pub(super) fn sample(&mut self) -> bool {
        let Some(sampler) = &self.sampler else { return false };
        let asked = self.asked_of_machine();
        sampler.want(if self.holds_machine() { Asked::default() } else { asked });
        if let Some(machine) = self.machine.as_mut().filter(|machine| machine.asked != asked) {
            machine.keep(asked);
        }
        let mut read = false;
        while let Some(machine) = self.sampler.as_ref().and_then(Sampler::told) {
            self.engine.hush();
            read |= self.take_machine(machine);
        }
        if read {
            self.make_sheets();
        }
        read
    }

    /// Paused, the machine stays as it was read last for this view.
    fn holds_machine(&self) -> bool {
        let asked = self.asked_of_machine();
        self.paused && self.machine.as_ref().is_some_and(|machine| machine.asked == asked && machine.is_settled())
    }

    /// Takes a reading, unless it is for a view that was left, or the picture is held.
    fn take_machine(&mut self, machine: Machine) -> bool {
        let is_wanted = !self.holds_machine() && machine.asked == self.asked_of_machine();
        if is_wanted {
            self.machine = Some(machine);
        }
        is_wanted
    }

    /// Waits until there are rates of what the view shows.
    pub(super) fn settle_machine(&mut self, until: Instant) {
        while !self.views[self.at].view.machine().is_empty()
            && self.machine.as_ref().is_some_and(|machine| !machine.is_settled())
        {
            let left = until.saturating_duration_since(Instant::now());
            let Some(machine) = self.sampler.as_ref().and_then(|sampler| sampler.wait(left)) else { break };
            self.engine.hush();
            self.take_machine(machine);
        }
    }
}
