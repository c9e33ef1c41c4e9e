/// What to consume: a queue.
#[derive(Clone, Debug)]
pub struct Queue {}
