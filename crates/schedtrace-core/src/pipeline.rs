//! .
/// .
#[derive(Debug)]
pub struct Pipeline;
/// .
#[derive(Debug)]
pub struct Summary;
