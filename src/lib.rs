//! solewriter
pub mod command; pub mod cursor; pub mod dead_letter; pub mod fencing_token; pub mod halt; pub mod handlers; pub mod horizon; pub mod kafka; pub mod outcome; pub mod postgres; pub mod record; pub mod steps;
pub use handlers::{Context, Rejection};
pub use record::TopicPartition;
