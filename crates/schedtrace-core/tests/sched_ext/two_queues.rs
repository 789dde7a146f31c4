//! Lets the scheduler of `two_queues.bpf.c` schedule this machine until the standard input ends, for tests of what others
//! tell of it: in a virtual machine (`make vm-test`), for every task of the machine goes through its queues.

use std::error::Error;
use std::io::{Read, Write, stdin, stdout};

use libbpf_rs::{MapCore, ObjectBuilder};

fn main() -> Result<(), Box<dyn Error>> {
    let object = include_bytes!("two_queues.bpf.o");
    let mut scheduler = ObjectBuilder::default().open_memory(object)?.load()?;
    let mut map = scheduler.maps_mut().find(|map| map.name() == "two_queues").ok_or("the object has no scheduler")?;
    let _link = map.attach_struct_ops()?;
    stdout().write_all(b"it schedules\n")?;
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
