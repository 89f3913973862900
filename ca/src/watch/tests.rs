mod engine;
mod series;
mod week;
