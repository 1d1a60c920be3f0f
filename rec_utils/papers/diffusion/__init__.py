"""Diffusion models for recommendation: one file a method, on one set of schedules and steps.

The map is the survey of Lin et al., arXiv 2409.05033 (`taxonomy`). Diffusion as recommender: `diffrec` and
`ldiffrec` on users' rows, `dreamrec` and `diffurec` on sequences. For data: `diffuasr`. For content:
`difashion`.
`schedules` and `process` hold what they share; `study` runs any of them beside its baselines.
"""
