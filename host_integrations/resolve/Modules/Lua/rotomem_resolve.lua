-- Resolve's side: the clip under the playhead, its keys, the plate as the engine can read it, the result on the clip.

local rotomem = require("rotomem")

local M = {}

-- What the engine reads as it lies on disk; everything else is rendered to EXR first.
local STILLS = { exr = true, dpx = true, tif = true, tiff = true, png = true, jpg = true, jpeg = true }
local MOVIES = { mov = true, mp4 = true, m4v = true, mxf = true, mkv = true, avi = true }
local KEYS = { exr = true, png = true, tif = true, tiff = true }

local function extension(path) return (path:match("%.(%w+)$") or ""):lower() end

-- The path as Resolve tells it: "/x/sh010.[1001-1100].exr" -> "/x/sh010.%04d.exr", 1001, 1100. A movie: itself.
function M.pattern(path)
    local head, first, last, tail = path:match("^(.*)%[(%d+)%-(%d+)%]([^/\\%[%]]*)$")
    if not head then return path end
    return head .. "%0" .. #first .. "d" .. tail, tonumber(first), tonumber(last)
end

-- Which frames of a plate the item shows: `first` and `last` of the files; nil and why, where that is not certain.
-- offset, duration: of the item, in frames of the clip. Some versions count an image sequence's offset by its files.
function M.range(first, last, offset, duration)
    local a = first + offset
    if a >= first and a + duration - 1 <= last then return a, a + duration - 1 end
    if offset >= first and offset + duration - 1 <= last then return offset, offset + duration - 1 end
    return nil, ("the clip has frames %d-%d, the timeline shows %d of them from offset %d on, which cannot be: is the "
        .. "clip retimed? Render it in place first"):format(first, last, duration, offset)
end

local function number(value) return tonumber((tostring(value):match("%-?%d+%.?%d*"))) end

-- The clip under the playhead: names, path as the engine takes it, frames. Raises what to do, as a text.
function M.source(resolve)
    if not resolve then error("Resolve does not answer: start this from Workspace > Scripts", 0) end
    local project = resolve:GetProjectManager():GetCurrentProject()
    local timeline = project and project:GetCurrentTimeline()
    local item = timeline and timeline:GetCurrentVideoItem()
    if not item then error("no clip lies under the playhead: open a timeline and put the playhead on a clip", 0) end
    local clip = item:GetMediaPoolItem()
    local path = clip and clip:GetClipProperty("File Path")
    if not path or path == "" then
        error("what lies under the playhead has no file (a title, a compound clip?): render it in place first", 0)
    end
    local source = { project = project, timeline = timeline, item = item, clip = clip, name = clip:GetName() }
    local pattern, first, last = M.pattern(rotomem.slashes(path))
    local kind = extension(pattern)
    source.plate, source.readable = pattern, first ~= nil and STILLS[kind] or first == nil and MOVIES[kind] or false
    if not first then
        -- The engine counts a movie's frames from 1.
        first, last = 1, number(clip:GetClipProperty("Frames")) or 1
    end
    local rates = { number(clip:GetClipProperty("FPS")), number(timeline:GetSetting("timelineFrameRate")) }
    local ratio = rates[1] and rates[2] and rates[2] > 0 and rates[1] / rates[2] or 1
    local offset = math.floor(item:GetLeftOffset() * ratio + 0.5)
    local duration = math.floor((item:GetEnd() - item:GetStart()) * ratio + 0.5)
    source.first, source.last = M.range(first, last, offset, duration)
    if not source.first then error(source.last, 0) end
    return source
end

-- "hero.1001.exr" -> "hero", 1001, where the file can be a key. What no file may be called is spelled %2F.
function M.key_of(name)
    local object, frame, kind = name:match("^(.+)%.(%d+)%.(%w+)$")
    if not object or not KEYS[kind:lower()] then return nil end
    return (object:gsub("%%(%x%x)", function(code) return string.char(tonumber(code, 16)) end)), tonumber(frame)
end

function M.key_name(object, frame, kind)
    local spelled = object:gsub('[%c/\\:*?"<>|%%]', function(sign) return ("%%%02X"):format(sign:byte()) end)
    return ("%s.%d.%s"):format(spelled, frame, kind)
end

-- Stills of the current gallery album labelled `hero@1001`, written into the keys' folder.
local function export_stills(source, keys)
    local gallery = source.project:GetGallery()
    local album = gallery and gallery:GetCurrentStillAlbum()
    for _, still in ipairs(album and album:GetStills() or {}) do
        local object, frame = tostring(album:GetLabel(still)):match("^%s*(.-)@(%d+)%s*$")
        if object and object ~= "" then
            local target = rotomem.join(keys, M.key_name(object, tonumber(frame), "tif"))
            local before = {}
            for _, name in ipairs(rotomem.list(keys)) do before[name] = true end
            local written
            if album:ExportStills({ still }, keys, "rotomem-still", "tif") then
                for _, name in ipairs(rotomem.list(keys)) do
                    local path = rotomem.join(keys, name)
                    if name:match("^rotomem%-still.*%.tiff?$") then
                        os.remove(target)
                        written = os.rename(path, target)
                    elseif not before[name] then
                        os.remove(path) -- the grade that comes with a still
                    end
                end
            end
            if not written then
                error(("the still %s@%s was not written: open the Gallery on the Color page and try again"):format(
                    object, frame), 0)
            end
        end
    end
end

-- The masks as `--mask` takes them, of frames shifted by `shift`; those outside first..last are left out.
function M.masks(keys, source, shift)
    local masks, outside = {}, {}
    for _, name in ipairs(rotomem.list(keys)) do
        local object, frame = M.key_of(name)
        if object and frame >= source.first and frame <= source.last then
            masks[#masks + 1] = ("%s@%d=%s"):format(object, frame + shift, rotomem.join(keys, name))
        elseif object then
            outside[#outside + 1] = name
        end
    end
    if not masks[1] then
        error(("there is no key mask for frames %d-%d. Put one into %s, named like hero.%d.exr, or label a still in the "
            .. "gallery hero@%d%s"):format(source.first, source.last, keys, source.first, source.first,
            outside[1] and " (other frames have: " .. table.concat(outside, ", ") .. ")" or ""), 0)
    end
    return masks
end

local function half_codec(project)
    local best
    for _, codec in pairs(project:GetRenderCodecs("exr") or {}) do
        local name = tostring(codec)
        if name:find("RGBHalf", 1, true) and (not best or (name:find("ZIP", 1, true) and not best:find("ZIP", 1, true))) then
            best = name
        end
    end
    return best or error("this Resolve offers no half float EXR: render the clip to EXR by hand and use that", 0)
end

-- Render what the item shows to EXR; the pattern, and the first frame's number on disk. show as for rotomem.wait.
function M.render(source, folder, show)
    local project = source.project
    if project:IsRenderingInProgress() then error("Resolve renders already: try again when it has ended", 0) end
    rotomem.make_folder(folder)
    local before = project:GetCurrentRenderFormatAndCodec()
    local function must(done, what) if not done then error("Resolve refused to render the clip to EXR (" .. what .. ")", 0) end return done end
    must(project:SetCurrentRenderFormatAndCodec("exr", half_codec(project)), "format")
    must(project:SetRenderSettings({
        SelectAllFrames = false, MarkIn = source.item:GetStart(), MarkOut = source.item:GetEnd() - 1,
        TargetDir = folder, CustomName = "plate.", ExportVideo = true, ExportAudio = false,
    }), "settings")
    local id = must(project:AddRenderJob(), "job")
    local started = project:StartRendering({ id }, false)
    while started and project:IsRenderingInProgress() do
        local status = project:GetRenderJobStatus(id) or {}
        local done = tonumber(status.CompletionPercentage) or 0
        if show(("renders the clip to EXR: %d %%"):format(done), done / 100, true) then
            project:StopRendering()
            break
        end
        rotomem.sleep(0.2)
    end
    local status = project:GetRenderJobStatus(id) or {}
    project:DeleteRenderJob(id)
    if before and before.format then project:SetCurrentRenderFormatAndCodec(before.format, before.codec) end
    if status.JobStatus == "Cancelled" then return nil end
    must(started and status.JobStatus == "Complete", tostring(status.Error or status.JobStatus))
    for _, name in ipairs(rotomem.list(folder)) do
        local head, digits = name:match("^(.-)(%d+)%.exr$")
        if head then return rotomem.join(folder, head .. "%0" .. #digits .. "d.exr"), tonumber(digits) end
    end
    error("Resolve rendered nothing into " .. folder, 0)
end

-- A file pattern as Resolve spells it: "/x/m.%04d.exr", 1001, 1003 -> "/x/m.[1001-1003].exr".
function M.spelling(pattern, first, last)
    local width = tonumber(pattern:match("%%0(%d+)d")) or 4
    local digits = ("%%0%dd"):format(width)
    return (pattern:gsub("%%0%d+d", function() return ("[%s-%s]"):format(digits:format(first), digits:format(last)) end))
end

-- The packed mattes (R, G, B, A are objects) of frames a..b: pattern, first, last; one for every four objects.
function M.packed(folder, a, b)
    local found, order = {}, {}
    for _, name in ipairs(rotomem.list(folder)) do
        local head, digits = name:match("^(.*packed.-)(%d+)%.exr$")
        if head and tonumber(digits) >= a and tonumber(digits) <= b then
            local one = found[head] or { first = tonumber(digits) }
            if not found[head] then
                found[head], order[#order + 1] = one, one
                one.pattern = rotomem.join(folder, head .. "%0" .. #digits .. "d.exr")
            end
            one.last = tonumber(digits)
        end
    end
    return order
end

-- Where packed mattes have which object: "red hero, green car". Objects are packed in the order of their first frames,
-- and of one frame in the order given.
function M.channels(masks)
    local said, seen, order = {}, {}, {}
    for i, mask in ipairs(masks) do
        local object, frame = mask:match("^(.-)@(%d+)=")
        order[i] = { i, tonumber(frame), object }
    end
    table.sort(order, function(a, b) return a[2] < b[2] or a[2] == b[2] and a[1] < b[1] end)
    for _, one in ipairs(order) do
        local object = one[3]
        if not seen[object] then
            seen[object], said[#said + 1] = true, ({ "red", "green", "blue", "alpha" })[#said % 4 + 1] .. " " .. object
        end
    end
    return table.concat(said, ", ")
end

-- Mattes on the source clip, as clip mattes of the Color page. They replace those of an earlier run.
function M.attach(resolve, source, mattes)
    local pool, storage = source.project:GetMediaPool(), resolve:GetMediaStorage()
    local folder = rotomem.slashes(mattes[1].pattern):match("^(.*)/")
    local old = {}
    for _, path in ipairs(pool:GetClipMatteList(source.clip) or {}) do
        if rotomem.slashes(path):sub(1, #folder + 1) == folder .. "/" then old[#old + 1] = path end
    end
    if old[1] then pool:DeleteClipMattes(source.clip, old) end
    for _, one in ipairs(mattes) do
        local spelling = M.spelling(one.pattern, one.first, one.last)
        local file = one.pattern:gsub("%%0%d+d", function(width) return width:format(one.first) end)
        if not storage:AddClipMattesToMediaPool(source.clip, { spelling })
            and not storage:AddClipMattesToMediaPool(source.clip, { file }) then
            error("Resolve did not take the mattes as clip mattes: add " .. spelling .. " by hand (Media page, right "
                .. "click on the clip's folder, Add As Matte)", 0)
        end
    end
end

-- Ask the latest run of the clip under the playhead to stop.
function M.cancel(resolve)
    local source = M.source(resolve)
    local folder = rotomem.clip_folder(rotomem.settings(), source.project:GetName(), source.name)
    local job = rotomem.read(rotomem.join(folder, "jobs", "latest.txt"))
    if not job then return "this clip was never tracked" end
    rotomem.write(rotomem.join(job, "cancel"), "")
    return "asked to stop; the frame begun is finished"
end

-- What the artist sees: a window where this Resolve lets scripts have one, else the console. Two functions: one for
-- rotomem.wait, and one that tells how it ended and leaves the window until it is closed.
function M.display(title)
    local ui = fu and fu.UIManager
    local made, shown = pcall(function()
        local dispatcher = bmd.UIDispatcher(ui)
        local window = dispatcher:AddWindow({ ID = "Rotomem", WindowTitle = title, Geometry = { 300, 300, 560, 110 } },
            ui:VGroup({ ui:Label({ ID = "Said", Text = "" }), ui:Button({ ID = "Stop", Text = "Cancel", Weight = 0 }) }))
        local stop = false
        function window.On.Stop.Clicked() stop = true end
        function window.On.Rotomem.Close() stop = true end
        window:Show()
        local function show(text, _, new)
            if new then window:GetItems().Said.Text = text end
            dispatcher:StepLoop()
            return stop
        end
        local function tell(text)
            print("rotomem: " .. text)
            stop = false
            window:GetItems().Stop.Text = "Close"
            while not show(text, 1, true) do rotomem.sleep(0.05) end
        end
        return { show, tell }
    end)
    if ui and made then return shown[1], shown[2] end
    local function show(text, share, new)
        if new then print(("rotomem: %3.0f %%  %s"):format(share * 100, text)) end
        return false
    end
    return show, function(text) print("rotomem: " .. text) end
end

-- Run a menu entry's work(show) to its end: where the mattes are or nil, and a text; tell of it, and of what fails.
function M.to_the_end(work)
    local show, tell = M.display("rotomem")
    local ok, out, said = pcall(work, show)
    tell(ok and (said .. (out and ": " .. out or "")) or "failed: " .. tostring(out))
end

-- From the clip under the playhead to its mattes. how: "matte" (a clip matte) or "comp" (a Fusion composition).
function M.track(resolve, how, show)
    local settings = rotomem.settings()
    rotomem.engine(settings) -- missing? said before anything is rendered
    local source = M.source(resolve)
    local folder = rotomem.clip_folder(settings, source.project:GetName(), source.name)
    local keys = rotomem.make_folder(rotomem.join(folder, "keys"))
    export_stills(source, keys)
    local plate, shift = source.plate, 0
    M.masks(keys, source, 0) -- none? likewise
    if not source.readable then
        local first
        plate, first = M.render(source, rotomem.join(folder, "plate"), show)
        if not plate then return nil, "cancelled; no plate was rendered" end
        shift = first - source.first
    end
    local out = rotomem.join(folder, "mattes")
    local options = { also = { "packed" }, resume = true }
    for k, v in pairs(settings.options) do options[k] = v end
    options.frames = ("%d-%d"):format(source.first + shift, source.last + shift)
    local masks = M.masks(keys, source, shift)
    local job = rotomem.start(settings, { ["do"] = "track", plate = plate, masks = masks, out = out, options = options }, rotomem.make_folder(rotomem.join(folder, "jobs")))
    rotomem.wait(job, show)
    if job.problem then error(job.problem, 0) end
    if job.state == "cancelled" then return nil, "cancelled; the mattes written so far are whole: " .. out end
    if how == "comp" then
        local comp = rotomem.join(folder, "rotomem.comp")
        local export = rotomem.start(settings, { ["do"] = "export", plate = plate, mattes = { out }, kind = "comp",
            out = comp, origin = source.first + shift }, rotomem.join(folder, "jobs"))
        rotomem.wait(export, show)
        if export.problem then error(export.problem, 0) end
        if not source.item:ImportFusionComp(comp) then error("Resolve did not import " .. comp, 0) end
        return out, "a Fusion composition with plate and mattes is on the clip"
    end
    local mattes = M.packed(out, source.first + shift, source.last + shift)
    if not mattes[1] then error("there are no packed mattes in " .. out, 0) end
    if source.readable then
        M.attach(resolve, source, mattes)
        return out, ("the mattes are clip mattes now (%s): Color page, right click among the nodes, Add Matte"):format(
            M.channels(masks))
    end
    for _, one in ipairs(mattes) do
        source.project:GetMediaPool():ImportMedia({ { FilePath = one.pattern, StartIndex = one.first, EndIndex = one.last } })
    end
    return out, "the plate was rendered as the timeline shows it, so its mattes lie in the media pool, not on the clip"
end

-- The whole of a menu entry.
function M.run(how)
    local resolve = resolve or (Resolve and Resolve()) or (bmd and bmd.scriptapp("Resolve"))
    M.to_the_end(function(show) return M.track(resolve, how, show) end)
end

return M
