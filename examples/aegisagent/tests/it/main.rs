//! The service over real HTTP on 127.0.0.1, and the loader.

mod backup;
#[cfg(test)]
mod chains;
mod generate;
mod receipts;
#[cfg(test)]
mod service;
