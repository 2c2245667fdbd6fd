//! Power cuts, kills, full disks.
