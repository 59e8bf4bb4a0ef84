"""Reports as files: CSV for spreadsheets, HTML with its charts inside for people. No Dagster, no SQL, no disk.

Everything from the shop (ids, currencies) is escaped in HTML and guarded in CSV.
"""
