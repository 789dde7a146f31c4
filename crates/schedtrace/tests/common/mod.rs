//! What live tests of the command share: processes whose threads are known, what the kernel says of them, and the
//! recordings of the real command.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod clock;
pub mod compare;
pub mod process;
pub mod procfs;
pub mod recording;
pub mod table;
pub mod threads;
