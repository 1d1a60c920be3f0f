"""Raw data sets of the original publishers, checked and turned into Parquet."""
