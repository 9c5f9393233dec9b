-- Fusion's side, in Resolve's Fusion page and Fusion Studio: a Loader and a mask of the flow become mattes.

local rotomem = require("rotomem")

local M = {}

local MOVIES = { mov = true, mp4 = true, m4v = true, mxf = true, mkv = true, avi = true }

-- What a Loader shows: plate as the engine takes it, first and last frame on disk, the frame at time 0 (`origin`).
function M.plate(comp, loader)
    local told = loader:GetAttrs()
    local function first(name) return (told[name] or {})[1] end
    local path = rotomem.slashes(comp:MapPath(first("TOOLST_Clip_Name") or ""))
    if path == "" then error(loader.Name .. " has no file: choose one", 0) end
    local plate = { name = path:match("([^/]*)$"):gsub("%.%w+$", ""), loader = loader }
    local folder, stem, digits, tail = path:match("^(.-)([^/]-)(%d+)(%.%w+)$")
    local number = tonumber(first("TOOLIT_Clip_StartFrame"))
    if MOVIES[(path:match("%.(%w+)$") or ""):lower()] then
        plate.path, number = path, 1 -- the engine counts a movie's frames from 1
    elseif digits then
        plate.path = folder .. stem .. "%0" .. #digits .. "d" .. tail
        plate.name = (stem:gsub("[%._%-]+$", ""))
        number = number or tonumber(digits)
    else
        error(path .. " is one picture: connect a sequence or a movie", 0)
    end
    local start, stop = first("TOOLNT_Clip_Start"), first("TOOLNT_Clip_End")
    plate.first = number + (first("TOOLIT_Clip_TrimIn") or 0)
    plate.last = plate.first + stop - start
    plate.origin = plate.first - start
    return plate
end

-- The selected Loader, and what else is selected: the tools whose alpha is a key on the current frame.
function M.selected(comp)
    local loader, masks = nil, {}
    for _, tool in pairs(comp:GetToolList(true)) do
        if tool.ID == "Loader" and loader then error("two Loaders are selected: select the plate's alone", 0) end
        if tool.ID == "Loader" then loader = tool elseif tool.ID ~= "Saver" then masks[#masks + 1] = tool end
    end
    if not loader then error("select the plate's Loader, and the mask of the current frame with it", 0) end
    table.sort(masks, function(a, b) return a.Name < b.Name end)
    return loader, masks
end

-- Write a tool's picture of the current time as a key; a Saver does it and is gone again.
function M.save_key(comp, tool, keys, frame)
    local time, scratch = comp.CurrentTime, "rotomem-key"
    local saver = comp:AddTool("Saver", -32768, -32768)
    saver:SetInput("Clip", rotomem.join(keys, scratch .. ".exr"))
    saver:ConnectInput("Input", tool)
    local done = comp:Render({ Start = time, End = time, Wait = true, Tool = saver })
    saver:Delete()
    local target = ("%s.%d.exr"):format(tool.Name, frame)
    for _, name in ipairs(rotomem.list(keys)) do
        if done and name:match("^rotomem%-key.*%.exr$") then
            os.remove(rotomem.join(keys, target))
            assert(os.rename(rotomem.join(keys, name), rotomem.join(keys, target)))
            return target
        end
    end
    error(("Fusion did not render %s at time %d: look at it in a viewer"):format(tool.Name, time), 0)
end

-- Put plate and mattes into the flow, on the Loader that is there; nodes of an earlier run are left as they are.
local function add_nodes(comp, plate, setting, out, objects)
    local names, shown = {}, 0
    for _, tool in pairs(comp:GetToolList(false)) do
        names[tool.Name] = true
        local clip = tool.ID == "Loader" and (tool:GetAttrs().TOOLST_Clip_Name or {})[1]
        if clip and rotomem.slashes(clip):sub(1, #out + 1) == out .. "/" then shown = shown + 1 end
    end
    if shown >= objects then return "the nodes that are there show the new mattes" end
    if not comp:Paste(bmd.readfile(setting)) then error("Fusion did not take " .. setting, 0) end
    for _, tool in pairs(comp:GetToolList(false)) do
        if not names[tool.Name] and tool.ID == "MatteControl" then tool:ConnectInput("Background", plate.loader) end
    end
    for _, tool in pairs(comp:GetToolList(false)) do
        if not names[tool.Name] and tool.Name:match("^RotomemPlate") then tool:Delete() end
    end
    return "a Loader and a MatteControl for every object are in the flow"
end

function M.track(comp, show)
    local resolve = require("rotomem_resolve")
    local settings = rotomem.settings()
    rotomem.engine(settings)
    local loader, masks = M.selected(comp)
    local plate = M.plate(comp, loader)
    local folder = rotomem.clip_folder(settings, "Fusion", plate.name)
    local keys, jobs = rotomem.make_folder(rotomem.join(folder, "keys")), rotomem.make_folder(rotomem.join(folder, "jobs"))
    for _, tool in ipairs(masks) do M.save_key(comp, tool, keys, comp.CurrentTime + plate.origin) end
    local out, setting = rotomem.join(folder, "mattes"), rotomem.join(folder, "rotomem.setting")
    local options = { resume = true }
    for k, v in pairs(settings.options) do options[k] = v end
    options.frames = ("%d-%d"):format(plate.first, plate.last)
    local job = rotomem.start(settings, { ["do"] = "track", plate = plate.path, masks = resolve.masks(keys, plate, 0),
        out = out, options = options }, jobs)
    rotomem.wait(job, show)
    if job.problem then error(job.problem, 0) end
    if job.state == "cancelled" then return nil, "cancelled; the mattes written so far are whole: " .. out end
    local export = rotomem.start(settings, { ["do"] = "export", plate = plate.path, mattes = { out }, kind = "setting",
        out = setting, origin = plate.origin }, jobs)
    rotomem.wait(export, show)
    if export.problem then error(export.problem, 0) end
    local objects = 0
    for _ in pairs(job.result.report.objects or {}) do objects = objects + 1 end
    comp:Lock()
    comp:StartUndo("rotomem")
    local ok, said = pcall(add_nodes, comp, plate, setting, out, objects)
    comp:EndUndo(ok)
    comp:Unlock()
    if not ok then error(said, 0) end
    return out, said
end

-- The whole of the menu entry.
function M.run()
    require("rotomem_resolve").to_the_end(function(show) return M.track(comp or fusion:GetCurrentComp(), show) end)
end

return M
