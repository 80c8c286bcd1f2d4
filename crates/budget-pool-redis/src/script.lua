-- The wallet of budget-pool-redis, protocol 1: the rules of `protocol.rs`, inside the store.
-- Every number is a double, exact up to MOST. A refusal writes nothing: the writes come last.
local MOST, REMEMBERED, BATCH, MOST_KEYS = 9007199254740991, 86400000, 8, 1024
local WALLET, MEMBERS, EXPIRY, TOMBS, TOMBS_END, CLAIMS, CHANGES = unpack(KEYS)
-- The key of EscrowMint, in whose `available` the units of such a wallet lie that are free.
local ESCROW = KEYS[8]
local PROTOCOL, OP = ARGV[1], ARGV[2]

local writes = {}
local function write(...) writes[#writes + 1] = { ... } end
-- A script is not undone where the store refuses one of its commands. A user who may not run all of
-- them fails in these, which change nothing.
local function may_write()
    redis.call('HDEL', MEMBERS, '')
    redis.call('ZADD', EXPIRY, 'XX', '0', '')
    redis.call('ZREM', EXPIRY, '')
    redis.call('ZREMRANGEBYSCORE', CLAIMS, '-inf', '-inf')
    -- The last of them: where there is no wallet yet, it begins one.
    redis.call('HSET', WALLET, 'v', PROTOCOL)
end
local function commit()
    may_write()
    for _, call in ipairs(writes) do redis.call(unpack(call)) end
end
local function text(number) return string.format('%.0f', number) end
local function numbers(packed)
    local all = {}
    for number in string.gmatch(packed, '%S+') do all[#all + 1] = tonumber(number) end
    return all
end
local function time()
    local clock = redis.call('TIME')
    return tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
end
local now = time()
-- The server itself says who it is: a connection may lead to another one after a failover.
local function server(named)
    if named ~= '' then return named end
    return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or 'unknown'
end

local fields = redis.call('HGETALL', WALLET)
if OP == 'found' and #fields == 0 then
    local period, axes = tonumber(ARGV[4]), ARGV[6]
    write('HSET', WALLET, 'v', PROTOCOL, 'lost', ARGV[3], 'period', text(period), 'pend',
        text(period == 0 and 0 or now + period), 'run', server(ARGV[5]), 'learn', '0', 'ttl', '0', 'axes', axes,
        'members', '0', 'tombs', '0', 'escrow', ESCROW and '1' or '0')
    for at = 7, #ARGV do
        local cap = tonumber(ARGV[at])
        if not cap or cap > MOST then return { 'range' } end
        local axis = text(at - 6)
        write('HSET', WALLET, 'f' .. axis, text(cap), 'c' .. axis, text(cap), 'h' .. axis, '0', 'u' .. axis, '0')
    end
    -- What an older wallet of this name left behind is of no use to this one.
    redis.call('DEL', MEMBERS, EXPIRY, TOMBS, TOMBS_END, CLAIMS, CHANGES)
    commit()
    writes = {}
    fields = redis.call('HGETALL', WALLET)
end
if #fields == 0 then return { 'no_wallet' } end
local wallet = {}
for at = 1, #fields, 2 do wallet[fields[at]] = fields[at + 1] end
if wallet.v ~= PROTOCOL then return { 'version', wallet.v or '' } end

if OP == 'remove' then
    local live = redis.call('ZCOUNT', EXPIRY, '(' .. text(now), '+inf')
    if live > 0 and ARGV[3] ~= 'in use' then return { 'in_use', text(live) } end
    redis.call('DEL', WALLET, MEMBERS, EXPIRY, TOMBS, TOMBS_END, CLAIMS, CHANGES)
    return { 'removed' }
end

local period, period_end = tonumber(wallet.period), tonumber(wallet.pend)
local learn_until, longest_ttl = tonumber(wallet.learn), tonumber(wallet.ttl)
local member_count, tomb_count = tonumber(wallet.members), tonumber(wallet.tombs)
local run, lost, books = wallet.run, wallet.lost, {}
if not (period and period_end and learn_until and longest_ttl and run and lost and wallet.axes) then
    return { 'damaged', 'the wallet' }
end
for _ in string.gmatch(wallet.axes, '%S+') do
    local axis = text(#books + 1)
    local book = {
        founded = tonumber(wallet['f' .. axis]), cap = tonumber(wallet['c' .. axis]),
        charged = tonumber(wallet['h' .. axis]), used = tonumber(wallet['u' .. axis]),
    }
    if not (book.founded and book.cap and book.charged and book.used) then
        return { 'damaged', 'the wallet' }
    end
    books[#books + 1] = book
end
-- Whoever does not know of the units that EscrowMint spends would spend them again.
if (wallet.escrow == '1') ~= (ESCROW ~= nil) then return { 'other_founding' } end
local available
if ESCROW then
    local found = redis.call('HGET', ESCROW, 'available')
    available = tonumber(found or '0')
    if not available or available ~= math.floor(available) then
        return { 'damaged', 'the state of EscrowMint' }
    end
    books[1].cap = math.max(books[1].charged + available, 0)
    if books[1].cap > MOST then return { 'range' } end
end
-- A key that was evicted or deleted alone would make budget out of nothing. A key of another type
-- fails here, before the first write.
if redis.call('HLEN', MEMBERS) ~= member_count or redis.call('ZCARD', EXPIRY) ~= member_count then
    return { 'damaged', 'the members' }
end
if redis.call('HLEN', TOMBS) ~= tomb_count or redis.call('ZCARD', TOMBS_END) ~= tomb_count then
    return { 'damaged', 'the tombstones' }
end
redis.call('ZCARD', CLAIMS)

local function look()
    local answer = { 'wallet', text(now), text(period_end), lost, text(period), wallet.axes }
    for _, book in ipairs(books) do
        for _, number in ipairs({ book.founded, book.cap, book.charged, book.used }) do
            answer[#answer + 1] = text(number)
        end
    end
    return answer
end

local function save()
    local left = books[1] and books[1].cap - books[1].charged
    if ESCROW and left ~= available then
        local version = tonumber(redis.call('HGET', ESCROW, 'version') or '0') or 0
        write('HSET', ESCROW, 'available', text(left), 'version', text(version + 1))
    end
    write('HSET', WALLET, 'run', run, 'learn', text(learn_until), 'ttl', text(longest_ttl), 'pend',
        text(period_end), 'members', text(member_count), 'tombs', text(tomb_count))
    for at, book in ipairs(books) do
        local axis = text(at)
        write('HSET', WALLET, 'c' .. axis, text(book.cap), 'h' .. axis, text(book.charged), 'u' .. axis, text(book.used))
    end
    commit()
end

-- What was used is free in the new period; grants that are not spent stay charged.
local function turn()
    if period == 0 or now < period_end then return end
    period_end = period_end + (math.floor((now - period_end) / period) + 1) * period
    for _, book in ipairs(books) do
        book.charged = book.charged - book.used
        book.used = 0
    end
end

local function read(packed)
    local all, totals = numbers(packed), {}
    for at = 1, #books do
        totals[at] = { granted = all[3 * at - 1], returned = all[3 * at], spent = all[3 * at + 1] }
        if not totals[at].spent then return nil end
    end
    return { expires = all[1], totals = totals }
end
local function keep(id, record)
    local packed = { text(record.expires) }
    for _, totals in ipairs(record.totals) do
        packed[#packed + 1] = text(totals.granted)
        packed[#packed + 1] = text(totals.returned)
        packed[#packed + 1] = text(totals.spent)
    end
    write('HSET', MEMBERS, id, table.concat(packed, ' '))
    write('ZADD', EXPIRY, text(record.expires), id)
end

-- What a member holds becomes what it told as spent.
local function close(id, record, is_stored)
    local spent = {}
    for at, totals in ipairs(record.totals) do
        local unspent = totals.granted - totals.returned - totals.spent
        books[at].charged = books[at].charged - unspent
        totals.returned = totals.returned + unspent
        spent[at] = text(totals.spent)
    end
    if is_stored then member_count = member_count - 1 end
    tomb_count = tomb_count + 1
    write('HDEL', MEMBERS, id)
    write('ZREM', EXPIRY, id)
    write('ZREM', CLAIMS, id)
    write('HSET', TOMBS, id, table.concat(spent, ' '))
    write('ZADD', TOMBS_END, text(now + REMEMBERED), id)
end

-- What is told on top of what is known. Overage becomes part of the grant: it is charged already.
-- Returns nothing if a figure leaves the range.
local function tell(book, totals, spent, returned, seen)
    local before, spent_before = totals.granted - totals.returned, totals.spent
    totals.returned = math.max(totals.returned, returned)
    totals.spent = math.max(totals.spent, spent)
    totals.granted = math.max(totals.granted, seen, totals.returned + totals.spent)
    book.charged = book.charged + (totals.granted - totals.returned - before)
    book.used = book.used + (totals.spent - spent_before)
    return totals.granted <= MOST and book.charged <= MOST and book.used <= MOST
end

if OP == 'found' then
    local is_same = lost == ARGV[3] and text(period) == ARGV[4] and wallet.axes == ARGV[6]
    for at, book in ipairs(books) do is_same = is_same and text(book.founded) == ARGV[6 + at] end
    if not is_same then return { 'other_founding' } end
    return look()
end

if OP == 'look' then
    turn()
    return look()
end

if OP == 'caps' then
    if ARGV[3] ~= wallet.axes then return { 'axes' } end
    for at, book in ipairs(books) do
        if ARGV[3 + at] ~= '-' then
            local cap = tonumber(ARGV[3 + at])
            if cap > MOST then return { 'range' } end
            book.cap = cap
        end
    end
    turn()
    save()
    return look()
end

if OP == 'raise' or OP == 'lower' then
    local key, units = ARGV[3], {}
    if ARGV[4] ~= wallet.axes or #ARGV ~= 4 + #books then return { 'axes' } end
    for at = 1, #books do
        units[at] = tonumber(ARGV[4 + at])
        if not units[at] or units[at] > MOST then return { 'range' } end
    end
    local change = OP
    for at = 1, #books do change = change .. ' ' .. text(units[at]) end

    local all, before, kept, last, oldest = redis.call('HGETALL', CHANGES), nil, 0, 0, nil
    -- Without a number of keys, the wallet was founded by a version that remembers none: these are of
    -- an older wallet of its name.
    local known, last_known = tonumber(wallet.keys or '0'), tonumber(wallet.keys_end or '0')
    if not (known and last_known) then return { 'damaged', 'the wallet' } end
    for at = 1, #all, 2 do
        local over, made = string.match(all[at + 1], '^(%d+) (.*)$')
        over = tonumber(over)
        if known > 0 and not over then return { 'damaged', 'the keys' } end
        if known == 0 or over <= now then
            write('HDEL', CHANGES, all[at])
        else
            kept, last, oldest = kept + 1, math.max(last, over), math.min(oldest or over, over)
            if all[at] == key then before = made end
        end
    end
    -- Keys that are lost would have a change made twice, until the last would have been forgotten.
    if last_known > now and #all ~= 2 * known then return { 'damaged', 'the keys' } end
    if before and before ~= change then return { 'key_conflict', key } end
    if not before then
        if kept >= MOST_KEYS then return { 'keys_full', text(oldest - now) } end
        local at = 0
        for axis in string.gmatch(wallet.axes, '%S+') do
            at = at + 1
            local book = books[at]
            if OP == 'lower' and units[at] > book.cap then
                return { 'below_zero', axis, text(units[at]), text(book.cap) }
            end
            book.cap = OP == 'lower' and book.cap - units[at] or book.cap + units[at]
            if book.cap > MOST then return { 'range' } end
        end
        kept, last = kept + 1, math.max(last, now + REMEMBERED)
        write('HSET', CHANGES, key, text(now + REMEMBERED) .. ' ' .. change)
    end
    write('HSET', WALLET, 'keys', text(kept), 'keys_end', text(last))
    turn()
    save()
    return look()
end

if OP == 'members' then
    local answer, all = { 'members', text(now) }, redis.call('HGETALL', MEMBERS)
    for at = 1, #all, 2 do
        answer[#answer + 1] = all[at]
        answer[#answer + 1] = all[at + 1]
    end
    return answer
end

if OP == 'resolve' then
    turn()
    local id, packed = ARGV[3], redis.call('HGET', MEMBERS, ARGV[3])
    if not packed then return { 'no_member' } end
    local record = read(packed)
    if not record then return { 'damaged', 'the members' } end
    if ARGV[4] ~= wallet.axes then return { 'axes' } end
    for at, totals in ipairs(record.totals) do
        local spent = ARGV[4 + at] == '-' and totals.granted - totals.returned or tonumber(ARGV[4 + at])
        if spent > MOST or not tell(books[at], totals, spent, 0, 0) then return { 'range' } end
    end
    close(id, record, true)
    save()
    return look()
end

if OP ~= 'exchange' and OP ~= 'farewell' and OP ~= 'settle' then return { 'version', wallet.v } end

local id, ttl, claim = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
if ARGV[7] ~= wallet.axes or #ARGV ~= 7 + 5 * #books then return { 'axes' } end
local told = {}
for at = 1, #books do
    local all = {}
    for part = 1, 5 do
        all[part] = tonumber(ARGV[2 + 5 * at + part])
        if not all[part] or all[part] > MOST then return { 'range' } end
    end
    local one = { spent = all[1], returned = all[2], seen = all[3], want = all[4], floor = all[5] }
    if one.returned > one.seen or one.floor > one.want then return { 'range' } end
    told[at] = one
end

longest_ttl = math.max(longest_ttl, ttl)
-- A server that was restarted may have lost its last writes.
local here = server(ARGV[6])
if run ~= here then
    run = here
    learn_until = now + longest_ttl
end
turn()

local forgotten = {}
for _, over in ipairs(redis.call('ZRANGEBYSCORE', TOMBS_END, '-inf', text(now), 'LIMIT', 0, BATCH)) do
    forgotten[over] = true
    tomb_count = tomb_count - 1
    write('HDEL', TOMBS, over)
    write('ZREM', TOMBS_END, over)
end
write('ZREMRANGEBYSCORE', CLAIMS, '-inf', text(now))
local claims = {}
for _, short in ipairs(redis.call('ZRANGEBYSCORE', CLAIMS, '(' .. text(now), '+inf')) do
    claims[short] = true
end
if lost == 'return' and now >= learn_until then
    for _, over in ipairs(redis.call('ZRANGEBYSCORE', EXPIRY, '-inf', text(now), 'LIMIT', 0, BATCH)) do
        if over ~= id then
            local record = read(redis.call('HGET', MEMBERS, over) or '')
            if not record then return { 'damaged', 'the members' } end
            close(over, record, true)
            claims[over] = nil
        end
    end
end

local function others_short()
    local others = 0
    for short in pairs(claims) do
        if short ~= id then others = others + 1 end
    end
    return others
end

local function answer(state, totals)
    local live = math.max(redis.call('ZCOUNT', EXPIRY, '(' .. text(now), '+inf'), 1)
    local all = {
        state, text(now), text(period_end), text(learn_until), text(live),
        text(others_short()),
    }
    for at, book in ipairs(books) do
        for _, number in ipairs({
            book.founded, book.cap, book.charged, book.used, totals[at].granted, totals[at].returned, totals[at].spent,
        }) do
            all[#all + 1] = text(number)
        end
    end
    return all
end

local packed = redis.call('HGET', TOMBS, id)
if packed and not forgotten[id] then
    local spent, totals = numbers(packed), {}
    for at, book in ipairs(books) do
        local late = math.max(told[at].spent - spent[at], 0)
        book.charged = book.charged + late
        book.used = book.used + late
        if book.charged > MOST or book.used > MOST then return { 'range' } end
        spent[at] = spent[at] + late
        totals[at] = { granted = spent[at], returned = 0, spent = spent[at] }
        spent[at] = text(spent[at])
    end
    write('HSET', TOMBS, id, table.concat(spent, ' '))
    save()
    return answer('gone', totals)
end

packed = redis.call('HGET', MEMBERS, id)
if OP == 'settle' and not packed then return { 'no_member' } end
local record
if packed then
    record = read(packed)
    if not record then return { 'damaged', 'the members' } end
else
    record = { expires = 0, totals = {} }
    for at = 1, #books do record.totals[at] = { granted = 0, returned = 0, spent = 0 } end
end
for at, totals in ipairs(record.totals) do
    if not tell(books[at], totals, told[at].spent, told[at].returned, told[at].seen) then return { 'range' } end
end

if OP ~= 'exchange' then
    close(id, record, packed)
    save()
    return answer('closed', record.totals)
end

record.expires = now + ttl
if not packed then member_count = member_count + 1 end
local state, needs, stands = 'granted', {}, false
for at, totals in ipairs(record.totals) do
    local unseen = totals.granted - told[at].seen
    needs[at] = {
        floor = math.max(told[at].floor - unseen, 0), want = math.max(told[at].want - unseen, 0),
        room = math.min(math.max(books[at].cap - books[at].charged, 0), MOST - totals.granted),
    }
    stands = stands or needs[at].floor > 0
end
write('ZREM', CLAIMS, id)
if now < learn_until then
    if stands then state = 'learning' end
else
    for at, need in ipairs(needs) do
        if need.floor > need.room then
            state = 'short ' .. text(at - 1)
            write('ZADD', CLAIMS, text(now + claim), id)
            break
        end
    end
    if state == 'granted' then
        local others = others_short()
        -- This member counts, and those that were closed just now had expired already.
        local score = tonumber(redis.call('ZSCORE', EXPIRY, id) or '-1')
        local live = redis.call('ZCOUNT', EXPIRY, '(' .. text(now), '+inf')
        if score <= now and record.expires > now then live = live + 1 end
        if score > now and record.expires <= now then live = live - 1 end
        live = math.max(live, 1)
        for at, need in ipairs(needs) do
            local share = others > 0 and 0 or math.floor((need.room - need.floor) / (2 * live))
            local grant = need.floor + math.min(need.want - need.floor, share)
            record.totals[at].granted = record.totals[at].granted + grant
            books[at].charged = books[at].charged + grant
        end
    end
end
keep(id, record)
save()
return answer(state, record.totals)
