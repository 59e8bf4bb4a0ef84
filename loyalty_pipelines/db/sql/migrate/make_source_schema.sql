-- Makes the schema of the views, also one that somebody dropped: "loyalty sources apply" fills it. Run when it is missing.
CREATE SCHEMA loyalty_source;
COMMENT ON SCHEMA loyalty_source IS 'Views that give the shop''s own tables one shape; made by "loyalty sources apply".';
GRANT USAGE ON SCHEMA loyalty_source TO loyalty_owner, loyalty_pipeline, loyalty_app, loyalty_reader;
