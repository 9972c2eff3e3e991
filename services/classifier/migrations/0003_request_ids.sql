ALTER TABLE model_calls ADD COLUMN request_id text;    -- the vendor's own name of the call, to ask there about it

CREATE FUNCTION settle_model_call(of_call uuid, took_in bigint, took_out bigint, took_usd numeric, of_request text)
RETURNS TABLE (tokens_in bigint, tokens_out bigint, cost_usd numeric)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    RETURN QUERY SELECT * FROM settle_model_call(of_call, took_in, took_out, took_usd);
    UPDATE model_calls c SET request_id = of_request WHERE c.call_id = of_call AND c.request_id IS NULL;
END $$;
