//! One suite for every adapter: how a broker behaves, and the golden table of what it exports.
