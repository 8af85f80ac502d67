//! The results tree from outside: commits, owners, damage, kills.

mod commit;
mod damage;
mod garbage;
mod kill;
mod published;
mod stages;
