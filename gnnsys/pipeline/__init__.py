"""Pipeline: a model cut by layers over devices; schedules as data, stage runners, transport."""
